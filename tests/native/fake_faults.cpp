// fake_faults.cpp: lost contexts, and the wrapper that makes calls fail.
#include <atomic>
#include <thread>

#include "fake/faulty.h"
#include "fake_rig.h"

namespace {

using namespace st::fake;

void count(void* data) { ++*static_cast<int*>(data); }

void a_poisoned_context_fails_until_it_is_reset() {
  Rig rig(exact());
  FakeDriver& driver = rig.driver;
  const CUstream stream = rig.stream_on(rig.green({rig.split(8)[0]}));
  const CUevent before = rig.event(), after = rig.event();
  int ran = 0;
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  OK(rig.launch(kernel, stream));
  OK(driver.cuEventRecord(before, stream));
  OK(driver.cuEventSynchronize(before));
  driver.poison(kLaunchFailed);
  OK(driver.cuEventQuery(before));  // nothing ended since
  OK(rig.launch(kernel, stream));
  OK(driver.cuLaunchHostFunc(stream, count, &ran));
  OK(driver.cuEventRecord(after, stream));
  EXPECT(kNotReady, driver.cuEventQuery(after));
  EXPECT(kLaunchFailed, driver.cuEventSynchronize(after));
  assert(ran == 0);

  // From now on whatever touches the context says so; what destroys does destroy.
  std::size_t free = 0, total = 0;
  CUdevice device = -1;
  CUcontext context = nullptr;
  CUdeviceptr memory = 0;
  EXPECT(kLaunchFailed, driver.cuMemGetInfo(&free, &total));
  EXPECT(kLaunchFailed, driver.cuMemAlloc(&memory, 64));
  EXPECT(kLaunchFailed, rig.launch(kernel, stream));
  EXPECT(kLaunchFailed, driver.cuEventQuery(before));
  EXPECT(kLaunchFailed, driver.cuStreamDestroy(stream));
  EXPECT(kLaunchFailed, driver.cuStreamDestroy(stream));
  OK(driver.cuDeviceGet(&device, 0));
  OK(driver.cuCtxGetCurrent(&context));
  OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
  assert(driver.live().streams == 0 && driver.live().events == 2);

  OK(driver.cuDevicePrimaryCtxReset(0));
  assert(driver.live() == Live{});
  OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
  OK(driver.cuMemGetInfo(&free, &total));
  OK(driver.cuStreamSynchronize(nullptr));
}

void the_last_release_forgives_too() {
  Rig rig;
  rig.driver.poison(kIllegalAddress);
  OK(rig.driver.cuMemsetD8Async(rig.memory(64), 1, 64, nullptr));
  EXPECT(kIllegalAddress, rig.driver.cuCtxSynchronize());
  OK(rig.driver.cuDevicePrimaryCtxRelease(0));
  CUcontext context = nullptr;
  OK(rig.driver.cuDevicePrimaryCtxRetain(&context, 0));
  OK(rig.driver.cuCtxSynchronize());
}

struct Faults {
  std::shared_ptr<FakeDriver> fake = std::make_shared<FakeDriver>();
  FaultyDriver driver{fake};
  CUcontext context = nullptr;

  Faults() {
    OK(driver.cuInit(0));
    OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
    OK(driver.cuCtxSetCurrent(context));
    driver.clear();
  }
  CUresult stream(CUstream* made) {
    return driver.cuStreamCreateWithPriority(made, kStreamNonBlocking, 0);
  }
};

void the_nth_call_fails_once() {
  Faults faults;
  CUstream stream = nullptr;
  CUevent event = nullptr;
  const char* text = nullptr;
  faults.driver.fail({.nth = 2, .code = kOutOfMemory});
  faults.driver.fail({.entry = Entry::cuEventCreate, .nth = 2, .code = kInvalidValue});
  OK(faults.stream(&stream));
  OK(faults.driver.cuGetErrorName(1, &text));  // not counted
  EXPECT(kOutOfMemory, faults.stream(&stream));
  OK(faults.stream(&stream));
  OK(faults.driver.cuEventCreate(&event, 0));
  EXPECT(kInvalidValue, faults.driver.cuEventCreate(&event, 0));
  OK(faults.driver.cuEventCreate(&event, 0));
  assert(faults.driver.calls() == 6 && faults.driver.calls(Entry::cuEventCreate) == 3);
  const std::vector<Entry> struck{Entry::cuStreamCreateWithPriority, Entry::cuEventCreate};
  assert(faults.driver.failed() == struck);
  assert(faults.fake->live().streams == 2 && faults.fake->live().events == 2);
  faults.driver.clear();
  OK(faults.stream(&stream));
  OK(faults.stream(&stream));
  assert(faults.driver.calls() == 2 && faults.driver.failed().empty());
}

void a_failed_destroy_leaks() {
  Faults faults;
  CUstream stream = nullptr;
  OK(faults.stream(&stream));
  faults.driver.fail({.entry = Entry::cuStreamDestroy, .code = kInvalidContext});
  EXPECT(kInvalidContext, faults.driver.cuStreamDestroy(stream));
  assert(faults.fake->live().streams == 1);
}

void a_sticky_fault_loses_the_context() {
  Faults faults;
  CUstream stream = nullptr;
  CUdevice device = -1;
  OK(faults.stream(&stream));
  faults.driver.fail(
      {.entry = Entry::cuStreamSynchronize, .code = kIllegalAddress, .sticky = true});
  EXPECT(kIllegalAddress, faults.driver.cuStreamSynchronize(stream));
  EXPECT(kIllegalAddress, faults.driver.cuStreamQuery(stream));
  EXPECT(kIllegalAddress, faults.stream(&stream));
  OK(faults.driver.cuDeviceGet(&device, 0));
  EXPECT(kIllegalAddress, faults.driver.cuStreamDestroy(stream));
  assert(faults.fake->live().streams == 0);
  OK(faults.driver.cuDevicePrimaryCtxReset(0));
  OK(faults.driver.cuDevicePrimaryCtxRetain(&faults.context, 0));
  OK(faults.stream(&stream));
}

void a_hook_may_delay_a_call() {
  Faults faults;
  std::atomic<bool> reached = false, go = false;
  faults.driver.before([&](Entry entry) {
    if (entry != Entry::cuStreamSynchronize) return;
    reached = true;
    while (!go) std::this_thread::yield();
  });
  std::thread slow([&] {
    OK(faults.driver.cuCtxSetCurrent(faults.context));
    OK(faults.driver.cuStreamSynchronize(nullptr));
  });
  while (!reached) std::this_thread::yield();
  OK(faults.driver.cuStreamQuery(nullptr));  // others are not held up
  assert(faults.driver.calls(Entry::cuStreamSynchronize) == 0);
  go = true;
  slow.join();
  assert(faults.driver.calls(Entry::cuStreamSynchronize) == 1);
}

// The smallest scenario with everything in it. Each of its calls fails in turn; whoever made the
// call sees it, and a reset leaves nothing behind.
CUresult scenario(Driver& driver) {
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  CUevent event = nullptr;
  CUdeviceptr memory = 0;
#define TRY(call) \
  if (const CUresult code = call; code != kSuccess) return code
  TRY(driver.cuInit(0));
  TRY(driver.cuDevicePrimaryCtxRetain(&context, 0));
  TRY(driver.cuCtxSetCurrent(context));
  TRY(driver.cuStreamCreateWithPriority(&stream, kStreamNonBlocking, 0));
  TRY(driver.cuEventCreate(&event, 0));
  TRY(driver.cuMemAlloc(&memory, 64));
  TRY(driver.cuMemsetD8Async(memory, 1, 64, stream));
  TRY(driver.cuEventRecord(event, stream));
  TRY(driver.cuEventSynchronize(event));
  TRY(driver.cuMemFree(memory));
  TRY(driver.cuEventDestroy(event));
  TRY(driver.cuStreamDestroy(stream));
  TRY(driver.cuDevicePrimaryCtxRelease(0));
#undef TRY
  return kSuccess;
}

void every_call_of_a_scenario_can_fail() {
  for (const bool sticky : {false, true}) {
    std::uint64_t nth = 1;
    for (;; ++nth) {
      const auto fake = std::make_shared<FakeDriver>();
      FaultyDriver driver(fake);
      driver.fail({.nth = nth, .code = kLaunchFailed, .sticky = sticky});
      const CUresult code = scenario(driver);
      if (code == kSuccess) break;
      EXPECT(kLaunchFailed, code);
      assert(driver.calls() == nth && driver.failed().size() == 1);
      (void)fake->cuDevicePrimaryCtxReset(0);
      assert(fake->live() == Live{});
    }
    assert(nth == 14);
  }
}

}  // namespace

int main() {
  a_poisoned_context_fails_until_it_is_reset();
  the_last_release_forgives_too();
  the_nth_call_fails_once();
  a_failed_destroy_leaks();
  a_sticky_fault_loses_the_context();
  a_hook_may_delay_a_call();
  every_call_of_a_scenario_can_fail();
  std::puts("fake_faults: ok");
}
