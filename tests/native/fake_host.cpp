// fake_host.cpp: host functions: when they run, where, and that they block nobody they must not.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "fake_rig.h"

namespace {

using namespace st::fake;

void call(void* function) { (*static_cast<std::function<void()>*>(function))(); }

void runs_when_its_time_has_come_in_order() {
  Rig rig(exact());
  const CUstream stream = rig.stream(), other = rig.stream();
  TimeNs ran_ns = -1;
  int ran = 0;
  std::function<void()> first = [&] {
    ran_ns = rig.driver.now_ns();
    ++ran;
  };
  OK(rig.launch(rig.kernel(computing(1000, 132)), stream));
  OK(rig.driver.cuLaunchHostFunc(stream, call, &first));
  OK(rig.driver.cuStreamSynchronize(other));
  assert(ran == 0);
  OK(rig.driver.cuStreamSynchronize(stream));
  assert(ran == 1 && rig.driver.now_ns() == 1000);
  assert(ran_ns == 0);  // the host's clock moves when the call that waited returns
  OK(rig.driver.cuLaunchHostFunc(stream, call, &first));
  assert(ran == 1);  // giving work runs nothing
  OK(rig.driver.cuStreamQuery(other));
  assert(ran == 2);
  OK(rig.driver.cuLaunchHostFunc(stream, call, &first));
  rig.driver.finish();
  assert(ran == 3);
}

void must_not_call_the_driver() {
  Rig rig;
  CUresult code = 0;
  std::function<void()> calls = [&] { code = rig.driver.cuStreamQuery(nullptr); };
  OK(rig.driver.cuLaunchHostFunc(nullptr, call, &calls));
  OK(rig.driver.cuStreamSynchronize(nullptr));
  assert(code == 800);
  // But what a garbage collector destroys there is destroyed.
  const CUstream stream = rig.stream();
  std::function<void()> destroys = [&] {
    OK(rig.driver.cuCtxSetCurrent(rig.context));
    OK(rig.driver.cuStreamDestroy(stream));
    OK(rig.driver.cuDevicePrimaryCtxRelease(0));
  };
  OK(rig.driver.cuLaunchHostFunc(nullptr, call, &destroys));
  OK(rig.driver.cuStreamSynchronize(nullptr));
  assert(rig.driver.live() == Live{});
}

// A host function that takes a lock, as one that runs Python takes the GIL; another thread holds it
// and keeps calling the driver, all but what waits.
void the_holder_of_a_lock_it_wants_goes_on() {
  Rig rig;
  const CUstream stream = rig.stream();
  const CUevent event = rig.event();
  std::mutex gil;
  std::atomic<bool> waiting = false;
  bool ran = false;
  std::function<void()> python = [&] {
    waiting = true;
    const std::scoped_lock lock(gil);
    ran = true;
  };
  OK(rig.launch(rig.kernel(computing(1000, 132)), stream));
  OK(rig.driver.cuLaunchHostFunc(stream, call, &python));
  OK(rig.driver.cuEventRecord(event, stream));
  gil.lock();
  std::thread lane([&] {
    OK(rig.driver.cuCtxSetCurrent(rig.context));
    OK(rig.driver.cuEventSynchronize(event));
  });
  while (!waiting) std::this_thread::yield();
  const TimeNs before = rig.driver.now_ns();
  for (int i = 0; i < 100; ++i) {
    EXPECT(kNotReady, rig.driver.cuEventQuery(event));
    EXPECT(kNotReady, rig.driver.cuStreamQuery(stream));
  }
  assert(rig.driver.now_ns() == before);
  const CUdeviceptr memory = rig.memory(64);
  OK(rig.driver.cuMemsetD8Async(memory, 1, 64, stream));
  OK(rig.driver.cuMemFree(memory));
  OK(rig.driver.cuStreamDestroy(rig.stream()));
  assert(!ran);
  gil.unlock();
  lane.join();
  assert(ran);
  OK(rig.driver.cuEventQuery(event));
  OK(rig.driver.cuStreamSynchronize(stream));
}

// Its memory stays until it returns, even if the context ends meanwhile.
void outlives_the_context() {
  Rig rig;
  const CUdeviceptr memory = rig.memory(64);
  std::atomic<bool> running = false, go = false;
  std::function<void()> writes = [&] {
    running = true;
    while (!go) std::this_thread::yield();
    *reinterpret_cast<char*>(memory) = 1;
  };
  OK(rig.driver.cuLaunchHostFunc(nullptr, call, &writes));
  std::thread lane([&] {
    OK(rig.driver.cuCtxSetCurrent(rig.context));
    OK(rig.driver.cuCtxSynchronize());
  });
  while (!running) std::this_thread::yield();
  OK(rig.driver.cuDevicePrimaryCtxReset(0));
  assert(rig.driver.live() == Live{});
  go = true;
  lane.join();
}

// Two that wait: one of them runs the host function, the other sees its end.
void two_threads_may_wait_for_one() {
  Rig rig;
  const CUstream stream = rig.stream();
  std::atomic<int> ran = 0;
  std::function<void()> counts = [&] { ++ran; };
  for (int i = 0; i < 200; ++i) {
    OK(rig.driver.cuLaunchHostFunc(stream, call, &counts));
    std::vector<std::thread> threads;
    if (i % 10 != 0) continue;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, i] {
        OK(rig.driver.cuCtxSetCurrent(rig.context));
        OK(rig.driver.cuStreamSynchronize(stream));
        assert(ran == i + 1);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

// Lanes with threads of their own, which never meet but in the driver: nothing is lost.
void many_lanes_at_once() {
  Rig rig;
  constexpr int kLanes = 4, kLaunches = 300;
  const std::vector<CUdevResource> groups = rig.split(8);
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  std::atomic<int> inside = 0;
  std::vector<int> ran(kLanes);
  std::vector<std::thread> lanes;
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes.emplace_back([&, lane] {
      OK(rig.driver.cuCtxSetCurrent(rig.context));
      const CUstream stream = rig.stream_on(rig.green({groups[static_cast<std::size_t>(lane)]}));
      const CUevent event = rig.event(kEventDisableTiming);
      std::function<void()> counts = [&] {
        assert(++inside == 1);  // one at a time
        ++ran[static_cast<std::size_t>(lane)];
        --inside;
      };
      for (int i = 0; i < kLaunches; ++i) {
        OK(rig.launch(kernel, stream));
        OK(rig.driver.cuLaunchHostFunc(stream, call, &counts));
        OK(rig.driver.cuEventRecord(event, stream));
        if (i % 2 == 0) OK(rig.driver.cuEventSynchronize(event));
        while (rig.driver.cuEventQuery(event) == kNotReady) std::this_thread::yield();
        assert(ran[static_cast<std::size_t>(lane)] == i + 1);
      }
      OK(rig.driver.cuStreamDestroy(stream));
    });
  }
  for (std::thread& lane : lanes) lane.join();
}

}  // namespace

int main() {
  runs_when_its_time_has_come_in_order();
  must_not_call_the_driver();
  the_holder_of_a_lock_it_wants_goes_on();
  outlives_the_context();
  two_threads_may_wait_for_one();
  many_lanes_at_once();
  std::puts("fake_host: ok");
}
