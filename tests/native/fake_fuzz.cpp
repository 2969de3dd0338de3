// fake_fuzz.cpp: calls in any order, with handles that may be stale or of another family, from one
// thread and from several: every call answers, time never goes back, and a reset leaves nothing.
#include <array>
#include <functional>
#include <random>
#include <thread>

#include "fake/needs.h"
#include "fake_rig.h"

namespace {

using namespace st::fake;

constexpr std::size_t kPage = 2 << 20;
constexpr std::size_t kMemory = 64 * kPage;

void nothing(void*) {}

class Fuzz {
 public:
  // alone: no other thread uses the driver, so the device may be reset now and then.
  Fuzz(FakeDriver& driver, unsigned seed, bool alone)
      : driver_(driver), random_(seed), alone_(alone) {
    retain();
    for (CUdevResource& group : groups_) group = {};
  }

  void run(int calls) {
    TimeNs before_ns = driver_.now_ns();
    for (int i = 0; i < calls; ++i) {
      const CUresult code = one();
      if (code != kSuccess) assert(error_name(code) != nullptr);
      if (code == kSuccess) ++succeeded_;
      const TimeNs now_ns = driver_.now_ns();
      assert(now_ns >= before_ns);
      before_ns = now_ns;
    }
  }
  void destroy_graphs() {  // they do not belong to the context
    for (const CUgraph graph : graphs_) (void)driver_.cuGraphDestroy(graph);
  }
  int succeeded() const { return succeeded_; }

 private:
  unsigned up_to(unsigned end) { return static_cast<unsigned>(random_()) % end; }
  void retain() {
    CUcontext context = nullptr;
    OK(driver_.cuDevicePrimaryCtxRetain(&context, 0));
    OK(driver_.cuCtxSetCurrent(context));
  }

  // Any handle made so far, now and then one of another family or none.
  template <typename Handle>
  Handle any(const std::vector<Handle>& pool) {
    if (pool.empty() || up_to(20) == 0) return reinterpret_cast<Handle>(0x10000 + 16 * up_to(500));
    return pool[pool.size() - 1 - up_to(std::min<unsigned>(8, pool.size()))];
  }
  template <typename Handle>
  CUresult keep(std::vector<Handle>& pool, CUresult code, const Handle& made) {
    if (code == kSuccess) pool.push_back(made);
    return code;
  }
  CUdeviceptr pointer() {
    const auto& pool = up_to(2) == 0 ? memories_ : arenas_;
    return pool.empty() ? 0 : pool[up_to(static_cast<unsigned>(pool.size()))] + up_to(64);
  }

  CUresult one() {
    switch (up_to(4)) {
      case 0:
        return work();
      case 1:
        return wait();
      case 2:
        return make();
      default:
        return up_to(3) == 0 ? destroy() : map();
    }
  }

  CUresult work() {
    const CUstream stream = any(streams_);
    switch (up_to(8)) {
      case 0:
        return driver_.cuLaunchKernel(any(functions_), 1, 1, 1, 1, 1, 1, 0, stream, nullptr,
                                      nullptr);
      case 1:
        return driver_.cuMemcpyAsync(pointer(), pointer(), up_to(128), stream);
      case 2:
        return driver_.cuMemsetD8Async(pointer(), 1, up_to(128), stream);
      case 3:
        return driver_.cuLaunchHostFunc(stream, nothing, nullptr);
      case 4:
        return driver_.cuEventRecord(any(events_), stream);
      case 5:
        return driver_.cuStreamWaitEvent(stream, any(events_), 0);
      case 6:
        return driver_.cuGraphUpload(any(execs_), stream);
      default:
        return driver_.cuGraphLaunch(any(execs_), stream);
    }
  }

  CUresult wait() {
    float ms = 0;
    int number = 0;
    switch (up_to(7)) {
      case 0:
        return driver_.cuStreamQuery(any(streams_));
      case 1:
        return driver_.cuEventQuery(any(events_));
      case 2:
        return driver_.cuStreamSynchronize(any(streams_));
      case 3:
        return driver_.cuEventSynchronize(any(events_));
      case 4:
        return driver_.cuEventElapsedTime(&ms, any(events_), any(events_));
      case 5:
        return driver_.cuStreamIsCapturing(any(streams_), &number);
      default:
        return up_to(10) == 0 ? driver_.cuCtxSynchronize() : kNotReady;
    }
  }

  CUresult make() {
    CUstream stream = nullptr;
    CUevent event = nullptr;
    CUgraph graph = nullptr;
    CUgraphExec exec = nullptr;
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    CUdeviceptr memory = 0;
    switch (up_to(10)) {
      case 0:
        return keep(streams_, driver_.cuStreamCreateWithPriority(&stream, up_to(2), 0), stream);
      case 1:
        return keep(events_, driver_.cuEventCreate(&event, 2 * up_to(2)), event);
      case 2:
        return driver_.cuStreamBeginCapture(any(streams_), static_cast<int>(up_to(3)));
      case 3:
      case 4:
        return keep(graphs_, driver_.cuStreamEndCapture(any(streams_), &graph), graph);
      case 5:
        return keep(execs_, driver_.cuGraphInstantiateWithFlags(&exec, any(graphs_), 0), exec);
      case 6:
        return keep(modules_,
                    driver_.cuModuleLoadData(
                        &module, "spacetime-fake-kernels/1\nk flops=1e9 bytes=1e6 cluster=2"),
                    module);
      case 7:
        return keep(functions_, driver_.cuModuleGetFunction(&function, any(modules_), "k"),
                    function);
      case 8:
        return keep(memories_, driver_.cuMemAlloc(&memory, 128 + up_to(1 << 20)), memory);
      default:
        return green();
    }
  }

  CUresult green() {
    CUdevResource all;
    CUdevResourceDesc descriptor = nullptr;
    CUgreenCtx made = nullptr;
    CUstream stream = nullptr;
    unsigned count = 8;
    switch (up_to(3)) {
      case 0:
        OK(driver_.cuDeviceGetDevResource(0, &all, kResourceSm));
        return driver_.cuDevSmResourceSplitByCount(groups_.data(), &count, &all, nullptr, up_to(3),
                                                   1 + up_to(16));
      case 1: {
        const CUresult code =
            driver_.cuDevResourceGenerateDesc(&descriptor, groups_.data() + up_to(4), 1 + up_to(4));
        if (code != kSuccess) return code;
        return keep(greens_, driver_.cuGreenCtxCreate(&made, descriptor, 0, 1), made);
      }
      default:
        return keep(streams_, driver_.cuGreenCtxStreamCreate(&stream, any(greens_), 1, 0), stream);
    }
  }

  CUresult map() {
    CUmemAllocationProp property{};
    property.type = kMemPinned;
    property.location = {kLocationDevice, 0};
    const CUmemAccessDesc access{{kLocationDevice, 0}, kAccessReadWrite};
    CUdeviceptr arena = 0;
    std::uint64_t handle = 0;
    if (arenas_.size() < 4) {
      return keep(arenas_, driver_.cuMemAddressReserve(&arena, 2 * kPage, 0, 0, 0), arena);
    }
    const CUdeviceptr row = arenas_[up_to(4)] + kPage * up_to(2);
    switch (up_to(6)) {
      case 0:
        return keep(physical_, driver_.cuMemCreate(&handle, kPage, &property, 0), handle);
      case 1:
        return driver_.cuMemMap(row, kPage, 0, physical_.empty() ? 1 : physical_.back(), 0);
      case 2:
        return driver_.cuMemSetAccess(row, kPage, &access, 1);
      case 3:
        return up_to(20) == 0 ? driver_.cuMemUnmap(row, kPage) : kNotReady;
      case 4:
        return driver_.cuMemRelease(physical_.empty() ? 1 : physical_.back());
      default:
        return driver_.cuMemAddressFree(row, kPage);
    }
  }

  CUresult destroy() {
    switch (up_to(10)) {
      case 0:
        return driver_.cuStreamDestroy(any(streams_));
      case 1:
        return driver_.cuEventDestroy(any(events_));
      case 2:
        return driver_.cuGraphDestroy(any(graphs_));
      case 3:
        return driver_.cuGraphExecDestroy(any(execs_));
      case 4:
        return driver_.cuModuleUnload(any(modules_));
      case 5:
        return driver_.cuGreenCtxDestroy(any(greens_));
      case 6:
        return driver_.cuMemFree(memories_.empty() ? 1 : memories_[up_to(memories_.size())]);
      default:
        if (!alone_ || up_to(60) != 0) return kNotReady;
        if (up_to(2) == 0) driver_.poison(kLaunchFailed);
        const CUresult code = driver_.cuDevicePrimaryCtxReset(0);
        arenas_.clear();  // their addresses are now the host's to give
        memories_.clear();
        retain();
        return code;
    }
  }

  FakeDriver& driver_;
  std::mt19937 random_;
  const bool alone_;
  int succeeded_ = 0;
  std::array<CUdevResource, 8> groups_;
  std::vector<CUgreenCtx> greens_;
  std::vector<CUstream> streams_;
  std::vector<CUevent> events_;
  std::vector<CUgraph> graphs_;
  std::vector<CUgraphExec> execs_;
  std::vector<CUmodule> modules_;
  std::vector<CUfunction> functions_;
  std::vector<CUdeviceptr> memories_, arenas_;
  std::vector<std::uint64_t> physical_;
};

void from(int threads, int calls, unsigned seed) {
  FakeDriver driver({.memory_bytes = kMemory});
  OK(driver.cuInit(0));
  std::vector<Fuzz> all;
  std::vector<std::thread> running;
  all.reserve(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    all.emplace_back(driver, seed + static_cast<unsigned>(i), threads == 1);
    running.emplace_back([&driver, &fuzz = all.back(), calls] {
      CUcontext context = nullptr;
      OK(driver.cuDevicePrimaryCtxRetain(&context, 0));
      OK(driver.cuCtxSetCurrent(context));
      fuzz.run(calls);
    });
  }
  for (std::thread& each : running) each.join();
  int succeeded = 0;
  for (Fuzz& fuzz : all) {
    fuzz.destroy_graphs();
    succeeded += fuzz.succeeded();
  }
  assert(succeeded > threads * calls / 10);
  OK(driver.cuDevicePrimaryCtxReset(0));
  assert(driver.live() == Live{});
}

}  // namespace

int main() {
  for (unsigned seed = 1; seed <= 8; ++seed) from(1, 4000, seed);
  for (unsigned seed = 1; seed <= 3; ++seed) from(3, 3000, 100 * seed);
  std::puts("fake_fuzz: ok");
}
