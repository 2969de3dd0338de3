// cuda_runner.cpp: runners under load on a fake device: what a graph copies from its input block
// to its output block is what requests get back, from any thread, while graphs and rows change.
#undef NDEBUG
#include <atomic>
#include <cassert>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "cuda/capture.h"
#include "cuda/runner.h"
#include "fake/fake_driver.h"
#include "rt/executor.h"

namespace {

using namespace st;
using namespace st::cuda;

constexpr std::uint32_t kLargest = 8;

// What stands for a model: output = input + 1000 * member, over a whole bucket.
struct Model {
  const Runner* runner;
  std::uint32_t bucket;
  static void run(void* data) {
    const auto& self = *static_cast<const Model*>(data);
    const BlockLayout in = self.runner->input_layout(self.bucket);
    const auto* block = reinterpret_cast<const std::byte*>(self.runner->input_block()->address());
    const auto* members = reinterpret_cast<const std::int64_t*>(block + in.offsets[0]);
    const auto* values = reinterpret_cast<const std::int32_t*>(block + in.offsets[1]);
    auto* out = reinterpret_cast<std::int32_t*>(self.runner->output_block()->address());
    for (std::uint32_t row = 0; row < self.bucket; ++row) {
      out[row] = values[row] + 1000 * static_cast<std::int32_t>(members[row]);
    }
  }
};

struct Rig {
  std::shared_ptr<fake::FakeDriver> driver = std::make_shared<fake::FakeDriver>();
  std::shared_ptr<Device> device = Device::open(driver, 0);
  std::shared_ptr<SmBackend> backend = std::make_shared<SmBackend>(device);

  std::shared_ptr<Runner> runner(const SmPartition& partition) const {
    auto made = std::make_shared<Runner>(device, partition.stream(),
                                         std::vector<std::size_t>{sizeof(std::int32_t)},
                                         std::vector<std::size_t>{sizeof(std::int32_t)},
                                         std::vector<std::uint32_t>{1, 3, kLargest}, 0);
    for (const std::uint32_t bucket : made->buckets()) {
      auto model = std::make_shared<Model>(Model{made.get(), bucket});
      Capture capture(partition.capture());
      capture.host(&Model::run, model.get());
      made->add(bucket, std::make_shared<Exec>(device, capture.end(), model));
    }
    return made;
  }
};

struct Request {
  std::vector<std::int32_t> in, out;
  Payload payload;
  Request(std::uint32_t member, std::uint32_t samples, std::int32_t first)
      : in(samples), out(samples, -1) {
    for (std::uint32_t i = 0; i < samples; ++i) in[i] = first + static_cast<std::int32_t>(i);
    payload.member = member;
    payload.samples = samples;
    payload.inputs = {reinterpret_cast<std::uint64_t>(in.data())};
    payload.outputs = {reinterpret_cast<std::uint64_t>(out.data())};
  }
  void check() const {
    for (std::size_t i = 0; i < in.size(); ++i) {
      assert(out[i] == in[i] + 1000 * static_cast<std::int32_t>(payload.member));
    }
  }
};

void gathers_and_scatters_any_mixture() {
  Rig rig;
  auto opened = rig.backend->open({0, 1}, 0);
  const auto runner = rig.runner(static_cast<SmPartition&>(*opened));
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    std::vector<std::unique_ptr<Request>> requests;
    std::vector<const Payload*> payloads;
    for (std::uint32_t i = 0; i <= seed % 7; ++i) {
      requests.push_back(std::make_unique<Request>((seed * 7 + i * 5) % 4, 1 + (seed + i) % 19,
                                                   static_cast<std::int32_t>(seed + 100 * i)));
      payloads.push_back(&requests.back()->payload);
    }
    assert(runner->run(payloads) == 0);
    for (const auto& request : requests) request->check();
  }
  runner->clear();
  const Request late(0, 1, 0);
  const Payload* payload = &late.payload;
  assert(code_of(runner->run({&payload, 1})) == kNotFound);
}

void serves_many_threads_while_rows_and_lanes_change() {
  Rig rig;
  sched::Policy policy;
  policy.batch = sched::BatchRule::kGreedy;
  auto executor = rt::Executor::open({.policy = policy, .capacity = 512}, rig.backend);
  const rt::FamilyId family = executor->add_family({{1, 3, kLargest}});
  for (std::uint32_t lane = 0; lane < 2; ++lane) {
    executor->add_lane({lane}, true, true, static_cast<int>(lane));
    auto& partition = static_cast<SmPartition&>(*executor->lane(lane).partition());
    executor->set_native(family, Runner::native(rig.runner(partition)), lane);
  }
  sched::TenantSpec spec;
  spec.family = family;
  const rt::TenantId tenant = executor->add_tenant(spec);

  std::atomic<bool> stop{false};
  std::thread changer([&] {  // rows come and go, and contexts of other sizes, beside the launches
    Arena arena(rig.device, 1000, 4, 4);
    for (std::size_t turn = 0; !stop.load(); ++turn) {
      arena.map(turn % 4);
      rig.backend->open({static_cast<std::uint32_t>(turn % 13), 14}, 0);
      arena.unmap(turn % 4);
    }
  });
  std::vector<std::thread> callers;
  for (int thread = 0; thread < 3; ++thread) {
    callers.emplace_back([&, thread] {
      for (std::uint32_t i = 0; i < 60; ++i) {
        Request request(i % 4, 1 + i % 11, static_cast<std::int32_t>(i) + 10000 * thread);
        const auto ticket = std::make_shared<rt::Ticket>(1);
        ticket->open();
        rt::RequestId id = 0;
        const rt::Submission submission{.tenant = tenant,
                                        .samples = request.payload.samples,
                                        .token = reinterpret_cast<std::uint64_t>(&request.payload),
                                        .ticket = ticket.get()};
        assert(executor->submit(submission, id) == rt::Refusal::kNone);
        assert(ticket->wait(rt::after(20'000'000'000)));
        assert(ticket->count(rt::Outcome::kOk) == 1);
        request.check();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  stop.store(true);
  changer.join();
  assert(executor->close(true, rt::kNever));
}

void leaves_nothing_whatever_goes_first() {
  auto driver = std::make_shared<fake::FakeDriver>();
  std::shared_ptr<Runner> runner;
  std::shared_ptr<Exec> exec;
  {
    Rig rig{driver, Device::open(driver, 0)};
    rig.backend = std::make_shared<SmBackend>(rig.device);
    auto opened = rig.backend->open({0, 1}, 0);
    auto& partition = static_cast<SmPartition&>(*opened);
    runner = rig.runner(partition);
    Capture abandoned(partition.warm());
    Capture other(partition.capture());
    exec = std::make_shared<Exec>(rig.device, other.end(), nullptr);
  }
  assert(driver->live().streams > 0);  // the runner's stream, on a context that its lane has left
  exec.reset();
  runner.reset();
  assert(driver->live() == fake::Live{});
}

}  // namespace

int main() {
  gathers_and_scatters_any_mixture();
  serves_many_threads_while_rows_and_lanes_change();
  leaves_nothing_whatever_goes_first();
  std::puts("cuda_runner: ok");
}
