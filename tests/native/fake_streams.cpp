// fake_streams.cpp: order, events, copies and virtual time, to the nanosecond.
#include <algorithm>
#include <cstring>
#include <utility>

#include "fake_rig.h"

namespace {

using namespace st::fake;

// A stream on groups [first, first + count) of one split by 8.
CUstream lane(Rig& rig, const std::vector<CUdevResource>& groups, unsigned first, unsigned count) {
  return rig.stream_on(rig.green({groups.begin() + first, groups.begin() + first + count}));
}

TimeNs until_done(Rig& rig, CUstream stream) {
  OK(rig.driver.cuStreamSynchronize(stream));
  return rig.driver.now_ns();
}

void a_kernel_takes_what_the_model_says() {
  FakeOptions options;
  Rig rig(options);
  const TimeNs start = rig.driver.now_ns();
  OK(rig.launch(rig.kernel(computing(1000, 132)), nullptr));
  // Module, function, launch; then the launch's latency and the work; the wait costs nothing more.
  assert(until_done(rig, nullptr) - start == 3 * options.call_ns + options.launch_ns + 1000);
  Rig bare(exact());
  const auto takes = [&](const std::string& costs, CUstream stream) {
    const TimeNs before = bare.driver.now_ns();
    OK(bare.launch(bare.kernel(costs), stream));
    return until_done(bare, stream) - before;
  };
  const std::vector<CUdevResource> groups = bare.split(8);
  const CUstream eight = lane(bare, groups, 0, 1), sixteen = lane(bare, groups, 0, 2);
  assert(takes(computing(1000, 8), eight) == 1000);
  assert(takes(computing(1000, 8), sixteen) == 500);
  assert(takes("flops=0 bytes=4300000", nullptr) == 1000);     // all of the memory's bandwidth
  assert(takes("flops=0 bytes=720000", eight) == 1000);        // all that 8 SMs can draw
  assert(takes("flops=67320000 bytes=100", nullptr) == 1000);  // the slower of both
  assert(takes("flops=0 bytes=0", nullptr) <= 1);
}

void disjoint_lanes_run_side_by_side() {
  Rig rig(exact());
  const std::vector<CUdevResource> groups = rig.split(8);
  const CUstream one = lane(rig, groups, 0, 4), two = lane(rig, groups, 4, 8);
  const CUfunction kernel = rig.kernel(computing(8000, 32));
  OK(rig.launch(kernel, one));
  OK(rig.launch(kernel, two));
  assert(until_done(rig, two) == 4000);
  assert(until_done(rig, one) == 8000);
  assert(rig.driver.busy_sm_ns() == 32 * 8000 + 64 * 4000);
}

void lanes_that_overlap_share() {
  Rig rig(exact());
  const std::vector<CUdevResource> groups = rig.split(8);
  const CUstream one = lane(rig, groups, 0, 4), two = lane(rig, groups, 2, 4);
  OK(rig.launch(rig.kernel(computing(3000, 32)), one));
  OK(rig.launch(rig.kernel(computing(6000, 32)), two));
  // Each has 16 SMs to itself and half of 16 others: 24 of 32, until the first ends.
  assert(until_done(rig, one) == 4000);
  assert(until_done(rig, two) == 4000 + 3000);
  assert(rig.driver.busy_sm_ns() == 48 * 4000 + 32 * 3000);
}

void memory_is_shared_with_interference_only() {
  for (const bool interference : {true, false}) {
    FakeOptions options = exact();
    options.interference = interference;
    Rig rig(options);
    const std::vector<CUdevResource> groups = rig.split(8);
    const CUstream one = lane(rig, groups, 0, 7), two = lane(rig, groups, 7, 8);
    // Both want all of the bandwidth, a third computes beside them and wants little.
    OK(rig.launch(rig.kernel("flops=0 bytes=4300000"), one));
    OK(rig.launch(rig.kernel("flops=0 bytes=8600000"), two));
    assert(until_done(rig, one) == (interference ? 2000 : 1000));
    assert(until_done(rig, two) == (interference ? 3000 : 2000));
  }
}

void events_order_and_measure() {
  Rig rig(exact());
  const CUstream one = rig.stream(), two = rig.stream();
  const CUevent begin = rig.event(), end = rig.event(), untimed = rig.event(kEventDisableTiming);
  const CUfunction kernel = rig.kernel(computing(2'000'000, 132));
  float ms = 0;
  OK(rig.driver.cuEventQuery(end));  // never recorded
  EXPECT(kInvalidHandle, rig.driver.cuEventElapsedTime(&ms, begin, end));
  OK(rig.driver.cuEventRecord(begin, one));
  OK(rig.launch(kernel, one));
  OK(rig.driver.cuEventRecord(end, one));
  OK(rig.driver.cuStreamWaitEvent(two, end, 0));
  OK(rig.launch(kernel, two));
  EXPECT(kNotReady, rig.driver.cuEventElapsedTime(&ms, begin, end));
  OK(rig.driver.cuEventSynchronize(end));
  assert(rig.driver.now_ns() == 2'000'000);
  OK(rig.driver.cuEventElapsedTime(&ms, begin, end));
  assert(ms == 2);
  EXPECT(kNotReady, rig.driver.cuStreamQuery(two));
  assert(until_done(rig, two) >= 4'000'000);
  OK(rig.driver.cuEventRecord(untimed, one));
  OK(rig.driver.cuCtxSynchronize());
  EXPECT(kInvalidHandle, rig.driver.cuEventElapsedTime(&ms, begin, untimed));
}

void a_wait_is_for_the_record_before_it() {
  Rig rig(exact());
  const CUstream one = rig.stream(), two = rig.stream();
  const CUevent event = rig.event();
  const CUfunction kernel = rig.kernel(computing(1000, 132));
  OK(rig.driver.cuEventRecord(event, one));
  OK(rig.driver.cuStreamWaitEvent(two, event, 0));
  OK(rig.launch(kernel, one));
  OK(rig.driver.cuEventRecord(event, one));
  OK(rig.driver.cuStreamQuery(two));
  EXPECT(kNotReady, rig.driver.cuEventQuery(event));
}

void polling_ends() {
  FakeOptions options = exact();
  Rig rig(options);
  const CUstream stream = rig.stream();
  OK(rig.launch(rig.kernel(computing(10 * options.poll_ns, 132)), stream));
  int polls = 0;
  while (rig.driver.cuStreamQuery(stream) == kNotReady) ++polls;
  assert(polls == 10 && rig.driver.now_ns() == 10 * options.poll_ns);
}

void the_context_waits_for_what_streams_left() {
  Rig rig(exact());
  const CUstream stream = rig.stream();
  OK(rig.launch(rig.kernel(computing(1000, 132)), stream));
  OK(rig.driver.cuStreamDestroy(stream));
  OK(rig.driver.cuCtxSynchronize());
  assert(rig.driver.now_ns() == 1000);
}

void the_null_stream_waits_for_blocking_ones() {
  Rig rig(exact());
  const CUstream blocking = rig.stream(0), free = rig.stream();
  const CUfunction kernel = rig.kernel(computing(1000, 132));
  OK(rig.launch(kernel, blocking));
  OK(rig.launch(kernel, nullptr));
  OK(rig.launch(kernel, blocking));
  assert(until_done(rig, blocking) == 3000);
  OK(rig.launch(kernel, free));
  OK(rig.launch(kernel, nullptr));
  assert(until_done(rig, nullptr) == 5000);  // shared the SMs
}

void copies_happen_when_their_time_has_come() {
  Rig rig(exact());
  const CUstream stream = rig.stream();
  const std::size_t bytes = 55'000;
  void *in = nullptr, *out = nullptr;
  OK(rig.driver.cuMemHostAlloc(&in, bytes, 0));
  OK(rig.driver.cuMemHostAlloc(&out, bytes, 0));
  const CUdeviceptr device = rig.memory(bytes);
  std::memset(in, 7, bytes);
  std::memset(out, 0, bytes);
  OK(rig.driver.cuMemcpyAsync(device, at(in), bytes, stream));
  OK(rig.driver.cuMemcpyAsync(at(out), device, bytes, stream));
  std::memset(in, 8, bytes);  // too early: pinned memory is read when the copy runs
  assert(static_cast<char*>(out)[0] == 0);
  assert(until_done(rig, stream) == 2000);
  assert(static_cast<char*>(out)[bytes - 1] == 8);
  OK(rig.driver.cuMemsetD8Async(device, 3, bytes, stream));
  OK(rig.driver.cuMemcpyAsync(at(out), device, bytes, stream));
  OK(rig.driver.cuStreamSynchronize(stream));
  assert(static_cast<char*>(out)[0] == 3);

  // Memory the driver does not know is read, and written, before the call returns.
  std::vector<char> plain(100, 5), back(100);
  OK(rig.driver.cuMemcpyAsync(device, at(plain.data()), 100, stream));
  std::fill(plain.begin(), plain.end(), 6);
  OK(rig.driver.cuMemcpyAsync(at(back.data()), device, 100, stream));
  assert(back == std::vector<char>(100, 5));
}

// Whatever the mixture of streams and events, work ends in an order that respects both, and each
// kernel takes at least the time that it takes alone.
void random_work_is_ordered(unsigned seed) {
  FakeOptions options = exact();
  Rig rig(options);
  const std::vector<CUdevResource> groups = rig.split(8);
  std::srand(seed);
  struct Item {
    int number;
    std::vector<int>* ended;
  };
  std::vector<int> ended;
  std::vector<std::vector<int>> before;  // per item
  std::vector<Item> items(60);
  std::vector<CUstream> streams;
  std::vector<int> last(4, -1), recorded(4, -1);
  std::vector<CUevent> events;
  std::vector<CUfunction> kernels;
  for (unsigned i = 0; i < 4; ++i) {
    streams.push_back(lane(rig, groups, i * 2, 1 + static_cast<unsigned>(std::rand()) % 6));
    events.push_back(rig.event());
    kernels.push_back(rig.kernel(computing(100 * (i + 1), 8)));
  }
  std::vector<std::vector<int>> pending(4);
  for (int i = 0; i < 60; ++i) {
    const auto s = static_cast<std::size_t>(std::rand() % 4);
    const auto e = static_cast<std::size_t>(std::rand() % 4);
    OK(rig.launch(kernels[e], streams[s]));
    items[static_cast<std::size_t>(i)] = {i, &ended};
    OK(rig.driver.cuLaunchHostFunc(
        streams[s],
        [](void* data) {
          const auto* item = static_cast<Item*>(data);
          item->ended->push_back(item->number);
        },
        &items[static_cast<std::size_t>(i)]));
    pending[s].push_back(last[s]);
    before.push_back(std::exchange(pending[s], {}));
    last[s] = i;
    if (std::rand() % 2 == 0) {
      OK(rig.driver.cuEventRecord(events[s], streams[s]));
      recorded[s] = i;
    } else {
      OK(rig.driver.cuStreamWaitEvent(streams[s], events[e], 0));
      pending[s].push_back(recorded[e]);
    }
    if (std::rand() % 8 == 0) (void)rig.driver.cuStreamQuery(streams[e]);
  }
  OK(rig.driver.cuCtxSynchronize());
  assert(ended.size() == 60);
  const auto place = [&](int i) { return std::find(ended.begin(), ended.end(), i); };
  for (int i = 0; i < 60; ++i) {
    for (const int earlier : before[static_cast<std::size_t>(i)]) {
      if (earlier >= 0) assert(place(earlier) < place(i));
    }
  }
}

}  // namespace

int main() {
  a_kernel_takes_what_the_model_says();
  disjoint_lanes_run_side_by_side();
  lanes_that_overlap_share();
  memory_is_shared_with_interference_only();
  events_order_and_measure();
  a_wait_is_for_the_record_before_it();
  polling_ends();
  the_context_waits_for_what_streams_left();
  the_null_stream_waits_for_blocking_ones();
  copies_happen_when_their_time_has_come();
  for (unsigned seed = 0; seed < 20; ++seed) random_work_is_ordered(seed);
  std::puts("fake_streams: ok");
}
