// fake_device.cpp: the fake's contexts, splits and green contexts against the real rules.
#include <thread>

#include "fake_rig.h"

namespace {

using namespace st::fake;

void needs_init_and_a_current_context() {
  FakeDriver driver;
  CUcontext context = nullptr;
  std::size_t free = 0, total = 0;
  CUdevice device = -1;
  EXPECT(kNotInitialized, driver.cuDeviceGet(&device, 0));
  EXPECT(kInvalidValue, driver.cuInit(1));
  OK(driver.cuInit(0));
  EXPECT(kInvalidDevice, driver.cuDeviceGet(&device, 1));
  OK(driver.cuDeviceGet(&device, 0));
  EXPECT(kInvalidContext, driver.cuMemGetInfo(&free, &total));
  OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
  EXPECT(kInvalidContext, driver.cuMemGetInfo(&free, &total));
  OK(driver.cuCtxSetCurrent(context));
  OK(driver.cuMemGetInfo(&free, &total));
  assert(free == total && total == driver.sheet().memory_bytes);
  std::thread([&] { EXPECT(kInvalidContext, driver.cuMemGetInfo(&free, &total)); }).join();
}

void two_drivers_have_their_own_current_context() {
  Rig one, two;
  CUcontext context = nullptr;
  OK(two.driver.cuCtxSetCurrent(nullptr));
  OK(one.driver.cuCtxGetCurrent(&context));
  assert(context == one.context);
}

void the_last_release_takes_everything_with_it() {
  Rig rig;
  CUcontext again = nullptr;
  OK(rig.driver.cuDevicePrimaryCtxRetain(&again, 0));
  assert(again == rig.context);
  const CUstream stream = rig.stream();
  const CUevent event = rig.event();
  rig.kernel("flops=1 bytes=1");
  rig.memory(100);
  OK(rig.driver.cuDevicePrimaryCtxRelease(0));
  OK(rig.driver.cuStreamSynchronize(stream));
  OK(rig.driver.cuDevicePrimaryCtxRelease(0));
  assert(rig.driver.live() == Live{});
  EXPECT(kContextIsDestroyed, rig.driver.cuStreamSynchronize(stream));
  EXPECT(kInvalidContext, rig.driver.cuDevicePrimaryCtxRelease(0));
  // The handle of the primary context stays; what belonged to the old one does not come back.
  OK(rig.driver.cuDevicePrimaryCtxRetain(&again, 0));
  assert(again == rig.context);
  EXPECT(kContextIsDestroyed, rig.driver.cuStreamSynchronize(stream));
  EXPECT(kContextIsDestroyed, rig.driver.cuEventDestroy(event));
}

struct Split {
  const char* device;
  unsigned groups, minimum, flags;  // asked for
  unsigned count, size, remainder;  // given
};

void splits_round_as_the_architecture_does() {
  constexpr unsigned kAny = 1000;
  const Split table[] = {
      // CUDA's guide on 132 SMs, and an H100's own groups.
      {"h200", 2, 72, 0, 1, 72, 60},
      {"h200", 6, 11, 0, 6, 16, 36},
      {"h200", 6, 11, kIgnoreCoscheduling, 6, 12, 60},
      {"h200", 2, 1, 0, 2, 8, 116},
      {"h100", kAny, 8, 0, 15, 8, 12},
      {"h100", kAny, 0, 0, 15, 8, 12},
      {"h200", kAny, 120, 0, 1, 120, 12},
      {"h200", kAny, 1, kIgnoreCoscheduling, 66, 2, 0},
      {"a100-80gb", kAny, 1, 0, 27, 4, 0},
      {"a100-80gb", kAny, 5, 0, 18, 6, 0},
      {"a100-80gb", kAny, 8, 0, 13, 8, 4},
      {"v100", kAny, 1, 0, 40, 2, 0},
      {"b200", kAny, 8, 0, 18, 8, 4},
  };
  for (const Split& row : table) {
    Rig rig({.device = row.device});
    const CUdevResource all = rig.whole();
    std::vector<CUdevResource> groups(row.groups);
    CUdevResource rest;
    unsigned count = row.groups, would = 0;
    OK(rig.driver.cuDevSmResourceSplitByCount(nullptr, &would, &all, nullptr, row.flags,
                                              row.minimum));
    OK(rig.driver.cuDevSmResourceSplitByCount(groups.data(), &count, &all, &rest, row.flags,
                                              row.minimum));
    assert(count == row.count && count == std::min(would, row.groups));
    for (unsigned i = 0; i < count; ++i) assert(groups[i].sm.smCount == row.size);
    assert(rest.sm.smCount == row.remainder);
    assert(rest.type == (row.remainder == 0 ? 0 : kResourceSm));
  }
}

void what_cannot_be_split() {
  Rig rig;
  const CUdevResource all = rig.whole();
  unsigned count = 0;
  CUdevResource group;
  const auto split = [&](const CUdevResource& input, unsigned minimum) {
    count = 1;
    return rig.driver.cuDevSmResourceSplitByCount(&group, &count, &input, nullptr, 0, minimum);
  };
  EXPECT(kInvalidValue, split(all, 133));
  EXPECT(kInvalidResourceConfiguration, split(all, 121));
  EXPECT(kInvalidResourceType, split(CUdevResource{}, 8));
  CUdevResource forged{};
  forged.type = kResourceSm;
  EXPECT(kInvalidResourceConfiguration, split(forged, 8));
  Rig other;
  EXPECT(kInvalidResourceConfiguration, split(other.whole(), 8));
  // A result only after it went through a green context.
  const std::vector<CUdevResource> groups = rig.split(16);
  EXPECT(kInvalidResourceConfiguration, split(groups.front(), 8));
  EXPECT(kInvalidResourceConfiguration, split(groups.back(), 8));
  CUdevResource through;
  OK(rig.driver.cuGreenCtxGetDevResource(rig.green({groups.front()}), &through, kResourceSm));
  OK(split(through, 8));
  assert(count == 1 && group.sm.smCount == 8);
}

void only_parts_of_one_split_are_merged() {
  Rig rig;
  const std::vector<CUdevResource> one = rig.split(8), two = rig.split(8);
  CUdevResourceDesc descriptor = nullptr;
  const auto merge = [&](std::vector<CUdevResource> parts) {
    return rig.driver.cuDevResourceGenerateDesc(&descriptor, parts.data(),
                                                static_cast<unsigned>(parts.size()));
  };
  OK(merge({one[0], one[7], one.back()}));
  EXPECT(kInvalidResourceConfiguration, merge({one[0], two[1]}));
  EXPECT(kInvalidResourceConfiguration, merge({one[0], one[0]}));
  EXPECT(kInvalidValue, merge({}));
}

void green_contexts() {
  Rig rig;
  const std::vector<CUdevResource> groups = rig.split(8);
  CUdevResource part = groups[0];
  CUdevResourceDesc descriptor = nullptr;
  CUgreenCtx context = nullptr;
  CUstream stream = nullptr;
  OK(rig.driver.cuDevResourceGenerateDesc(&descriptor, &part, 1));
  EXPECT(kInvalidValue, rig.driver.cuGreenCtxCreate(&context, descriptor, 0, 0));
  OK(rig.driver.cuGreenCtxCreate(&context, descriptor, 0, kGreenDefaultStream));
  const CUgreenCtx overlapping = rig.green({groups[0], groups[1], groups.back()});
  assert(rig.driver.live().primary_references == 3);
  OK(rig.driver.cuGreenCtxGetDevResource(overlapping, &part, kResourceSm));
  assert(part.sm.smCount == 28);

  int priority = 1;
  CUgreenCtx of = nullptr;
  EXPECT(kInvalidValue, rig.driver.cuGreenCtxStreamCreate(&stream, context, 0, 0));
  OK(rig.driver.cuGreenCtxStreamCreate(&stream, context, kStreamNonBlocking, -100));
  OK(rig.driver.cuStreamGetPriority(stream, &priority));
  OK(rig.driver.cuStreamGetGreenCtx(stream, &of));
  assert(priority == -5 && of == context && rig.driver.sms_of(stream).count() == 8);
  const CUstream plain = rig.stream();
  OK(rig.driver.cuStreamGetGreenCtx(plain, &of));
  assert(of == nullptr && rig.driver.sms_of(plain).count() == 132);

  // Destroyed before its stream, which leaks.
  OK(rig.driver.cuGreenCtxDestroy(context));
  EXPECT(kContextIsDestroyed, rig.driver.cuStreamDestroy(stream));
  EXPECT(kContextIsDestroyed, rig.driver.cuGreenCtxDestroy(context));
  assert(rig.driver.live().streams == 2 && rig.driver.live().green_contexts == 1);
}

void a_green_context_is_current_to_one_thread() {
  Rig rig;
  const CUgreenCtx green = rig.green({rig.split(8)[0]});
  CUcontext context = nullptr;
  OK(rig.driver.cuCtxFromGreenCtx(&context, green));
  OK(rig.driver.cuCtxSetCurrent(context));
  assert(rig.driver.sms_of(rig.stream()).count() == 8);
  const auto elsewhere = [&] { return rig.driver.cuCtxSetCurrent(context); };
  std::thread([&] { EXPECT(kInvalidContext, elsewhere()); }).join();
  OK(rig.driver.cuCtxSetCurrent(rig.context));
  std::thread([&] {
    OK(elsewhere());
    OK(rig.driver.cuGreenCtxDestroy(green));
    EXPECT(kContextIsDestroyed, rig.driver.cuCtxSynchronize());
  }).join();
}

void handles_of_another_family_are_unknown() {
  Rig rig;
  const CUstream stream = rig.stream();
  const auto event = reinterpret_cast<CUevent>(stream);
  EXPECT(kInvalidHandle, rig.driver.cuEventQuery(event));
  EXPECT(kInvalidHandle, rig.driver.cuGraphLaunch(reinterpret_cast<CUgraphExec>(stream), stream));
  EXPECT(kInvalidHandle, rig.driver.cuGreenCtxDestroy(reinterpret_cast<CUgreenCtx>(stream)));
  OK(rig.driver.cuStreamDestroy(stream));
  EXPECT(kInvalidHandle, rig.driver.cuStreamDestroy(stream));
}

void older_drivers_lack_calls() {
  struct Row {
    int version;
    bool green, stream;
  };
  for (const Row& row :
       {Row{12030, false, false}, Row{12040, true, false}, Row{12050, true, true}}) {
    Rig rig({.driver_version = row.version});
    CUdevResource resource;
    assert(rig.driver.has(Entry::cuGreenCtxCreate) == row.green);
    assert(rig.driver.has(Entry::cuGreenCtxStreamCreate) == row.stream);
    EXPECT(row.green ? kSuccess : kNotFound,
           rig.driver.cuDeviceGetDevResource(0, &resource, kResourceSm));
    if (row.green) assert(resource.sm.smCount == 132 && resource.sm.minSmPartitionSize == 0);
  }
}

void another_die_has_other_groups() {
  Rig rig({.whole_groups = 16});
  const std::vector<CUdevResource> groups = rig.split(8);
  assert(groups.size() == 17 && groups.back().sm.smCount == 4);
  try {
    FakeDriver driver({.whole_groups = 17});
    assert(false);
  } catch (const std::invalid_argument& error) {
    assert(std::string(error.what()) == "whole_groups: 17 of 8 SMs are more than the device's 132");
  }
}

void unknown_devices_are_named() {
  try {
    FakeDriver driver({.device = "k80"});
    assert(false);
  } catch (const std::invalid_argument& error) {
    assert(std::string(error.what()) ==
           "device: no fake 'k80'; use one of h200, h100, a100-80gb, b200, v100, vr200");
  }
}

void calls_are_logged() {
  Rig rig;
  for (std::size_t i = 0; i < FakeDriver::kLogged; ++i) rig.stream();
  EXPECT(kInvalidDevice, rig.driver.cuDevicePrimaryCtxRelease(1));
  const std::vector<Called> log = rig.driver.log();
  assert(log.size() == FakeDriver::kLogged);
  assert(log.front().entry == Entry::cuStreamCreateWithPriority);
  assert(log.back().entry == Entry::cuDevicePrimaryCtxRelease);
  assert(log.back().code == kInvalidDevice && log.back().at_ns == rig.driver.now_ns());
}

}  // namespace

int main() {
  needs_init_and_a_current_context();
  two_drivers_have_their_own_current_context();
  the_last_release_takes_everything_with_it();
  splits_round_as_the_architecture_does();
  what_cannot_be_split();
  only_parts_of_one_split_are_merged();
  green_contexts();
  a_green_context_is_current_to_one_thread();
  handles_of_another_family_are_unknown();
  older_drivers_lack_calls();
  another_die_has_other_groups();
  unknown_devices_are_named();
  calls_are_logged();
  std::puts("fake_device: ok");
}
