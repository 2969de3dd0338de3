// fake_rig.h: what the tests of the fake driver share: checks that say what came instead, and a
// device whose primary context is current.
#pragma once

#undef NDEBUG
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "fake/fake_driver.h"

namespace st::fake {

inline void expect(CUresult want, CUresult got, const char* call, const char* file, int line) {
  if (want == got) return;
  std::fprintf(stderr, "%s:%d: %s gave %d, not %d\n", file, line, call, got, want);
  std::abort();
}
#define EXPECT(want, call) ::st::fake::expect(want, call, #call, __FILE__, __LINE__)
#define OK(call) EXPECT(0, call)

struct Rig {
  explicit Rig(FakeOptions options = {}) : driver(std::move(options)) {
    OK(driver.cuInit(0));
    OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
    OK(driver.cuCtxSetCurrent(context));
  }

  CUstream stream(unsigned flags = kStreamNonBlocking) {
    CUstream made = nullptr;
    OK(driver.cuStreamCreateWithPriority(&made, flags, 0));
    return made;
  }
  CUevent event(unsigned flags = 0) {
    CUevent made = nullptr;
    OK(driver.cuEventCreate(&made, flags));
    return made;
  }
  CUfunction kernel(const std::string& costs) {
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    OK(driver.cuModuleLoadData(&module, ("spacetime-fake-kernels/1\nkernel " + costs).c_str()));
    OK(driver.cuModuleGetFunction(&function, module, "kernel"));
    return function;
  }
  CUresult launch(CUfunction function, CUstream stream) {
    return driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
  }
  CUdeviceptr memory(std::size_t bytes) {
    CUdeviceptr made = 0;
    OK(driver.cuMemAlloc(&made, bytes));
    return made;
  }
  std::size_t free_bytes() {
    std::size_t free = 0, total = 0;
    OK(driver.cuMemGetInfo(&free, &total));
    return free;
  }
  CUdevResource whole() {
    CUdevResource resource;
    OK(driver.cuDeviceGetDevResource(0, &resource, kResourceSm));
    return resource;
  }
  // The groups of one split, the remainder last.
  std::vector<CUdevResource> split(unsigned minimum, unsigned flags = 0) {
    const CUdevResource all = whole();
    unsigned count = 0;
    OK(driver.cuDevSmResourceSplitByCount(nullptr, &count, &all, nullptr, flags, minimum));
    std::vector<CUdevResource> groups(count + 1);
    OK(driver.cuDevSmResourceSplitByCount(groups.data(), &count, &all, &groups.back(), flags,
                                          minimum));
    return groups;
  }
  CUgreenCtx green(std::vector<CUdevResource> resources) {
    CUdevResourceDesc descriptor = nullptr;
    CUgreenCtx made = nullptr;
    OK(driver.cuDevResourceGenerateDesc(&descriptor, resources.data(),
                                        static_cast<unsigned>(resources.size())));
    OK(driver.cuGreenCtxCreate(&made, descriptor, 0, kGreenDefaultStream));
    return made;
  }
  CUstream stream_on(CUgreenCtx context) {
    CUstream made = nullptr;
    OK(driver.cuGreenCtxStreamCreate(&made, context, kStreamNonBlocking, 0));
    return made;
  }

  FakeDriver driver;
  CUcontext context = nullptr;
};

// Kernels take exactly their work: calls and launches cost nothing.
inline FakeOptions exact() {
  FakeOptions options;
  options.call_ns = options.launch_ns = options.node_ns = options.copy_ns = 0;
  return options;
}

// The text of a kernel that computes for `ns` on `sms` SMs of an H200.
inline std::string computing(TimeNs ns, unsigned sms) {
  return "flops=" + std::to_string(510 * ns * sms) + " bytes=0";
}

inline CUdeviceptr at(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace st::fake
