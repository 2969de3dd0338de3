// fake_memory.cpp: allocations, virtual memory, and what touching the wrong bytes does.
#include <cstring>

#include "fake_rig.h"

namespace {

using namespace st::fake;

constexpr std::size_t kPage = 2 << 20;
constexpr std::size_t kMemory = 64 * kPage;

CUmemAllocationProp on_device() {
  CUmemAllocationProp property{};
  property.type = kMemPinned;
  property.location = {kLocationDevice, 0};
  return property;
}

struct Space : Rig {
  Space() : Rig({.memory_bytes = kMemory}) {}
  std::uint64_t physical(std::size_t bytes) {
    std::uint64_t handle = 0;
    const CUmemAllocationProp property = on_device();
    OK(driver.cuMemCreate(&handle, bytes, &property, 0));
    return handle;
  }
  CUresult allow(CUdeviceptr pointer, std::size_t bytes) {
    const CUmemAccessDesc access{{kLocationDevice, 0}, kAccessReadWrite};
    return driver.cuMemSetAccess(pointer, bytes, &access, 1);
  }
};

void allocations_are_counted() {
  Space space;
  assert(space.free_bytes() == kMemory);
  const CUdeviceptr one = space.memory(kMemory / 2), two = space.memory(kMemory / 2);
  assert(space.free_bytes() == 0 && space.driver.live().allocations == 2);
  CUdeviceptr none = 0;
  EXPECT(kOutOfMemory, space.driver.cuMemAlloc(&none, 1));
  EXPECT(kOutOfMemory, space.driver.cuMemAlloc(&none, SIZE_MAX));
  EXPECT(kInvalidValue, space.driver.cuMemAlloc(&none, 0));
  OK(space.driver.cuMemFree(two));
  EXPECT(kInvalidValue, space.driver.cuMemFree(two));
  EXPECT(kInvalidValue, space.driver.cuMemFree(one + 512));
  assert(space.free_bytes() == kMemory / 2);
  OK(space.driver.cuMemFree(one));
  OK(space.driver.cuMemFree(0));
  assert(space.free_bytes() == kMemory);
  void* host = nullptr;
  OK(space.driver.cuMemHostAlloc(&host, 100, 0));
  assert(space.free_bytes() == kMemory && space.driver.live().host_allocations == 1);
  OK(space.driver.cuMemFreeHost(host));
  EXPECT(kInvalidValue, space.driver.cuMemFreeHost(host));
}

void rows_of_an_arena_come_and_go() {
  Space space;
  FakeDriver& driver = space.driver;
#ifdef __SANITIZE_THREAD__
  constexpr std::size_t kRows = 1 << 14;  // it leaves a program little room for addresses
#else
  constexpr std::size_t kRows = 1 << 18;  // a terabyte of addresses
#endif
  const std::size_t row = 2 * kPage, rows = kRows;
  std::size_t granularity = 0;
  const CUmemAllocationProp property = on_device();
  OK(driver.cuMemGetAllocationGranularity(&granularity, &property, kGranularityMinimum));
  assert(granularity == kPage);
  CUdeviceptr arena = 0;
  OK(driver.cuMemAddressReserve(&arena, row * rows, 0, 0, 0));
  assert(arena % kPage == 0 && space.free_bytes() == kMemory);

  const std::uint64_t weights = space.physical(row);
  assert(space.free_bytes() == kMemory - row);
  EXPECT(kInvalidValue, driver.cuMemMap(arena + 1, row, 0, weights, 0));
  EXPECT(kInvalidValue, driver.cuMemMap(arena, kPage, 0, weights, 0));
  EXPECT(kInvalidValue, driver.cuMemMap(arena + row * rows - kPage, row, 0, weights, 0));
  OK(driver.cuMemMap(arena + row, row, 0, weights, 0));
  EXPECT(208, driver.cuMemMap(arena + row + kPage, row, 0, weights, 0));
  EXPECT(kInvalidValue, driver.cuMemsetD8Async(arena + row, 1, row, nullptr));  // not allowed yet
  EXPECT(kInvalidValue, space.allow(arena, row));                               // not mapped
  OK(space.allow(arena + row, row));
  OK(driver.cuMemsetD8Async(arena + row, 1, row, nullptr));
  EXPECT(kInvalidValue, driver.cuMemsetD8Async(arena + row, 1, row + 1, nullptr));
  OK(driver.cuStreamSynchronize(nullptr));
  assert(*reinterpret_cast<char*>(arena + 2 * row - 1) == 1);

  // The handle may go first; the memory goes with the last mapping.
  OK(driver.cuMemRelease(weights));
  EXPECT(kInvalidValue, driver.cuMemRelease(weights));
  assert(space.free_bytes() == kMemory - row);
  EXPECT(kInvalidValue, driver.cuMemAddressFree(arena, row * rows));
  EXPECT(kInvalidValue, driver.cuMemUnmap(arena + row, kPage));
  OK(driver.cuMemUnmap(arena + row, row));
  assert(space.free_bytes() == kMemory && driver.live().physical == 0);
  EXPECT(kInvalidValue, driver.cuMemAddressFree(arena, row));
  OK(driver.cuMemAddressFree(arena, row * rows));
  assert(driver.live().reservations == 0 && driver.live().mappings == 0);
}

void contents_belong_to_the_handle() {
  Space space;
  FakeDriver& driver = space.driver;
  CUdeviceptr here = 0, there = 0;
  OK(driver.cuMemAddressReserve(&here, 2 * kPage, 0, 0, 0));
  OK(driver.cuMemAddressReserve(&there, kPage, 8 * kPage, 0, 0));
  assert(there % (8 * kPage) == 0);
  const std::uint64_t one = space.physical(kPage), two = space.physical(kPage);
  OK(driver.cuMemMap(here, kPage, 0, one, 0));
  OK(driver.cuMemMap(here + kPage, kPage, 0, two, 0));
  OK(space.allow(here, 2 * kPage));
  std::memset(reinterpret_cast<void*>(here), 9, 2 * kPage);
  OK(driver.cuMemUnmap(here, 2 * kPage));  // both mappings at once
  OK(driver.cuMemMap(there, kPage, 0, two, 0));
  OK(space.allow(there, kPage));
  assert(*reinterpret_cast<char*>(there) == 9);
  CUmemAllocationProp elsewhere = on_device();
  elsewhere.location.id = 1;
  std::uint64_t none = 0;
  EXPECT(kInvalidValue, driver.cuMemCreate(&none, kPage, &elsewhere, 0));
  elsewhere = on_device();
  EXPECT(kInvalidValue, driver.cuMemCreate(&none, kPage + 1, &elsewhere, 0));
  EXPECT(kOutOfMemory, driver.cuMemCreate(&none, kMemory, &elsewhere, 0));
}

void memory_outlives_the_work_before_its_end() {
  Space space;
  const CUstream stream = space.stream();
  const CUdeviceptr one = space.memory(100), two = space.memory(100);
  char back[100] = {};
  OK(space.launch(space.kernel(computing(1'000'000, 132)), stream));
  OK(space.driver.cuMemsetD8Async(one, 4, 100, stream));
  OK(space.driver.cuMemcpyAsync(two, one, 100, stream));
  OK(space.driver.cuMemFree(one));
  OK(space.driver.cuMemcpyAsync(at(back), two, 100, stream));
  assert(back[99] == 4);
  EXPECT(kInvalidValue, space.driver.cuMemsetD8Async(one, 4, 100, stream));
}

void pinned_memory_too() {
  Space space;
  const CUstream stream = space.stream();
  void* host = nullptr;
  const CUdeviceptr memory = space.memory(100);
  char back[100] = {};
  OK(space.driver.cuMemHostAlloc(&host, 100, 0));
  std::memset(host, 5, 100);
  OK(space.driver.cuMemcpyAsync(memory, at(host), 100, stream));
  OK(space.driver.cuMemFreeHost(host));
  OK(space.driver.cuMemcpyAsync(at(back), memory, 100, stream));
  assert(back[99] == 5);
  EXPECT(kInvalidValue, space.driver.cuMemcpyAsync(memory, at(host), 100, stream));
}

// A host function that runs late finds the row in place; once it is done the row is gone, unless
// something else was mapped there.
void rows_outlive_the_host_functions_before_their_end() {
  Space space;
  CUdeviceptr arena = 0;
  OK(space.driver.cuMemAddressReserve(&arena, 2 * kPage, 0, 0, 0));
  for (int row = 0; row < 2; ++row) {
    OK(space.driver.cuMemMap(arena + row * kPage, kPage, 0, space.physical(kPage), 0));
  }
  OK(space.allow(arena, 2 * kPage));
  const auto writes = [](void* row) { *static_cast<char*>(row) = 1; };
  auto* first = reinterpret_cast<char*>(arena);
  OK(space.driver.cuLaunchHostFunc(nullptr, writes, first));
  OK(space.driver.cuLaunchHostFunc(nullptr, writes, first + kPage));
  OK(space.driver.cuMemUnmap(arena, 2 * kPage));
  const std::uint64_t next = space.physical(kPage);
  OK(space.driver.cuMemMap(arena + kPage, kPage, 0, next, 0));
  OK(space.allow(arena + kPage, kPage));
  OK(space.driver.cuStreamSynchronize(nullptr));
  OK(space.driver.cuStreamQuery(nullptr));
  assert(first[kPage] == 1);
  EXPECT(kInvalidValue, space.driver.cuMemsetD8Async(arena, 1, 1, nullptr));
}

void work_on_what_is_unmapped_loses_the_context() {
  Space space;
  CUdeviceptr arena = 0;
  OK(space.driver.cuMemAddressReserve(&arena, kPage, 0, 0, 0));
  OK(space.driver.cuMemMap(arena, kPage, 0, space.physical(kPage), 0));
  OK(space.allow(arena, kPage));
  const CUstream stream = space.stream();
  OK(space.launch(space.kernel(computing(1000, 132)), stream));
  OK(space.driver.cuMemsetD8Async(arena, 1, kPage, stream));
  OK(space.driver.cuMemUnmap(arena, kPage));
  EXPECT(kIllegalAddress, space.driver.cuStreamSynchronize(stream));
  EXPECT(kIllegalAddress, space.driver.cuCtxSynchronize());
}

void a_reset_returns_everything() {
  Space space;
  CUdeviceptr arena = 0;
  OK(space.driver.cuMemAddressReserve(&arena, kPage, 0, 0, 0));
  OK(space.driver.cuMemMap(arena, kPage, 0, space.physical(kPage), 0));
  space.memory(100);
  OK(space.driver.cuDevicePrimaryCtxReset(0));
  assert(space.driver.live() == Live{});
  CUcontext context = nullptr;
  OK(space.driver.cuDevicePrimaryCtxRetain(&context, 0));
  assert(space.free_bytes() == kMemory);
}

}  // namespace

int main() {
  allocations_are_counted();
  rows_of_an_arena_come_and_go();
  contents_belong_to_the_handle();
  memory_outlives_the_work_before_its_end();
  pinned_memory_too();
  rows_outlive_the_host_functions_before_their_end();
  work_on_what_is_unmapped_loses_the_context();
  a_reset_returns_everything();
  std::puts("fake_memory: ok");
}
