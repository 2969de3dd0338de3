// rt_executor.cpp: lanes and the executor under load, with every thread they can have.
#undef NDEBUG
#include <array>
#include <cassert>
#include <cstdio>
#include <thread>
#include <vector>

#include "cpu/cpu.h"
#include "rt/executor.h"

namespace {

using namespace st;
using namespace st::rt;

constexpr TimeNs kSoon = 20'000'000'000;  // a test that waits this long has failed

struct Rig {
  std::shared_ptr<cpu::Cpu> device = std::make_shared<cpu::Cpu>();
  std::shared_ptr<Executor> executor;
  std::vector<TenantId> tenants;
  FamilyId family = 0;

  explicit Rig(std::uint32_t lanes, Native native = noop(), std::uint32_t queue_limit = 64,
               std::uint32_t capacity = 256, bool native_lanes = true,
               sched::Route route = sched::Route::kLeastWait) {
    sched::Policy policy;
    policy.route = route;
    policy.batch = sched::BatchRule::kGreedy;
    executor = Executor::open({.policy = policy, .capacity = capacity, .timeline = 64}, device);
    const std::vector<std::uint32_t> cores = device->available();
    for (std::uint32_t i = 0; i < lanes; ++i) {
      executor->add_lane({cores[i % cores.size()]}, true, native_lanes);
    }
    family = executor->add_family({{1, 4, 16}});
    for (int i = 0; i < 4; ++i) tenants.push_back(add_tenant(queue_limit));
    executor->set_native(family, std::move(native));
  }
  TenantId add_tenant(std::uint32_t queue_limit) {
    sched::TenantSpec spec;
    spec.family = family;
    spec.queue_limit = queue_limit;
    if (executor->lanes() > 0) spec.lane = 0;
    return executor->add_tenant(spec);
  }
  std::shared_ptr<Ticket> bulk(std::uint64_t count, bool block = true) {
    Bulk bulk;
    bulk.tenants = tenants;
    bulk.count = count;
    bulk.block = block;
    bulk.ticket = std::make_shared<Ticket>(count);
    bulk.ticket->open();
    assert(executor->submit_some(bulk, kNever));
    return bulk.ticket;
  }
};

std::uint64_t sum(const Ticket& ticket) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < kOutcomes; ++i) total += ticket.count(static_cast<Outcome>(i));
  return total;
}

// Reads until the executor is closed, and counts how often every token came by.
void read_all(Executor& executor, std::vector<std::uint32_t>& seen) {
  std::vector<Completion> ended;
  while (executor.completions(ended, 64, after(kSoon))) {
    assert(!ended.empty());
    for (const Completion& end : ended) ++seen[end.token];
    ended.clear();
  }
}

void bulk_ends_on(std::uint32_t lanes) {
  // Deep queues: submitters hand events over, and come back for room.
  Rig rig(lanes, noop(), 1024, 4096);
  const auto ticket = rig.bulk(100'000);
  assert(ticket->wait(after(kSoon)));
  assert(ticket->count(Outcome::kOk) == 100'000);
  const Counters counters = rig.executor->counters();
  assert(counters.waiting == 0 && counters.in_flight == 0);
  assert(rig.executor->close(true, after(kSoon)));
}

// Several submitters, some refused; a reader; cancels; a tenant removed; a close at any time.
void every_request_ends_once(std::uint32_t lanes, bool drain) {
  constexpr std::uint64_t kEach = 3'000;
  constexpr std::uint64_t kSubmitters = 3;
  Rig rig(lanes, noop(), 8, 32);
  Executor& executor = *rig.executor;
  std::vector<std::uint32_t> seen(kEach * kSubmitters);
  std::vector<std::uint32_t> accepted(seen.size());
  std::thread reader([&] { read_all(executor, seen); });
  std::vector<std::thread> submitters;
  for (std::uint64_t s = 0; s < kSubmitters; ++s) {
    submitters.emplace_back([&, s] {
      for (std::uint64_t token = s * kEach; token < (s + 1) * kEach; ++token) {
        RequestId id = 0;
        const TimeNs deadline = token % 7 == 0 ? after(50'000) : kNever;
        const Submission submission{
            .tenant = rig.tenants[token % 4], .deadline = deadline, .token = token};
        accepted[token] = executor.submit(submission, id) == Refusal::kNone;
        if (accepted[token] && token % 11 == 0) executor.cancel(id);
        if (token == kEach / 2) executor.remove_tenant(rig.tenants[3]);
      }
    });
  }
  if (!drain) assert(executor.close(false, after(kSoon)));
  for (std::thread& submitter : submitters) submitter.join();
  assert(executor.close(true, after(kSoon)));
  reader.join();
  assert(seen == accepted);
}

void a_deadline_is_answered_while_the_lane_is_busy() {
  const auto latch = std::make_shared<Latch>();
  Rig rig(1, Latch::native(latch));
  RequestId id = 0;
  assert(rig.executor->submit({.tenant = rig.tenants[0], .token = 0}, id) == Refusal::kNone);
  assert(latch->wait_entered(1, after(kSoon)));
  const TimeNs deadline = after(2'000'000);
  assert(rig.executor->submit({.tenant = rig.tenants[0], .deadline = deadline, .token = 1}, id) ==
         Refusal::kNone);
  std::vector<Completion> ended;
  assert(rig.executor->completions(ended, 64, after(kSoon)));
  assert(ended.size() == 1 && ended[0].token == 1 && ended[0].outcome == Outcome::kDeadline);
  assert(ended[0].finish_ns >= deadline && ended[0].lane == kNone);
  latch->open();
  assert(rig.executor->close(true, after(kSoon)));
}

void close_gives_up_a_launch_that_hangs() {
  const auto latch = std::make_shared<Latch>();
  Rig rig(1, Latch::native(latch));
  const auto ticket = rig.bulk(40);
  assert(latch->wait_entered(1, after(kSoon)));
  assert(!rig.executor->close(true, after(1'000'000)));
  assert(ticket->pending() == 0 && ticket->count(Outcome::kClosed) == 40);
  assert(!rig.executor->close(true, after(1'000'000)));
  std::weak_ptr<Executor> memory = rig.executor->weak_from_this();
  rig.executor.reset();
  latch->open();  // its thread goes on alone, and frees the executor
  while (!memory.expired()) std::this_thread::yield();
}

void close_without_drain_drops_what_waits() {
  const auto latch = std::make_shared<Latch>();
  Rig rig(2, Latch::native(latch));
  const auto ticket = rig.bulk(100, false);
  assert(latch->wait_entered(2, after(kSoon)));
  std::thread closer([&] { assert(rig.executor->close(false, after(kSoon))); });
  while (rig.executor->counters().waiting > 0) std::this_thread::yield();
  latch->open();
  closer.join();
  assert(ticket->pending() == 0 && sum(*ticket) == 100);
  assert(ticket->count(Outcome::kClosed) > 0 && ticket->count(Outcome::kOk) > 0);
}

void foreign_launches_are_served_from_outside() {
  Rig rig(1, Native{}, 64, 256, false);
  std::thread server([&] {
    while (Launch* launch = rig.executor->take(0, kNever)) {
      std::vector<std::int32_t> codes(launch->tokens.size());
      for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = launch->tokens[i] % 2;
      assert(rig.executor->finish(0, launch->start.launch, codes));
    }
  });
  const auto ticket = rig.bulk(1'000);
  assert(ticket->wait(after(kSoon)));
  assert(ticket->count(Outcome::kOk) == 500 && ticket->count(Outcome::kFailed) == 500);
  assert(rig.executor->close(true, after(kSoon)));
  server.join();
}

void a_lane_without_a_server_fails_what_it_gets() {
  Rig rig(1, Native{}, 64, 256, false);
  const auto before = rig.bulk(10);
  rig.executor->fail(0);
  const auto later = rig.bulk(200);
  assert(before->wait(after(kSoon)) && later->wait(after(kSoon)));
  assert(before->count(Outcome::kFailed) == 10 && later->count(Outcome::kFailed) == 200);
  assert(rig.executor->close(true, after(kSoon)));
}

void lanes_and_tenants_are_added_under_load() {
  Rig rig(1);
  std::thread submitter([&] { assert(rig.bulk(5'000)->wait(after(kSoon))); });
  for (int i = 0; i < 7; ++i) {
    rig.executor->add_lane({rig.device->available()[0]}, true, true);
    rig.add_tenant(64);
    rig.executor->set_latency(rig.family, 0, 4, 1'000);
  }
  submitter.join();
  assert(rig.executor->lanes() == 8);
}

// Every tenant moves to a new lane, again and again; the lane it left drains and closes.
void tenants_move_between_lanes_under_load() {
  Rig rig(1, noop(), 64, 256, true, sched::Route::kPinned);
  Executor& executor = *rig.executor;
  std::thread submitter([&] { assert(rig.bulk(20'000)->wait(after(kSoon))); });
  for (LaneId old = 0; old < 6; ++old) {
    const LaneId next = executor.add_lane({rig.device->available()[0]}, true, true);
    executor.set_latency(rig.family, next, 16, 1'000);
    executor.set_batch(rig.family, next, old % 2 == 0 ? 4 : kNone);
    for (const TenantId tenant : rig.tenants) executor.set_routes(tenant, {next, {}}, old % 2 == 0);
    while (executor.load(old) > 0) std::this_thread::yield();
    executor.close_lane(old);
  }
  submitter.join();
  const Counters counters = executor.counters();
  std::uint64_t met = 0;
  for (const sched::TenantStats& tenant : counters.stats.tenants()) met += tenant.met;
  assert(met == 20'000 && counters.in_flight == 0);
  assert(executor.close(true, after(kSoon)));
}

}  // namespace

int main() {
  for (const std::uint32_t lanes : {0u, 1u, 2u, 8u}) bulk_ends_on(lanes);
  for (const std::uint32_t lanes : {0u, 1u, 8u}) {
    every_request_ends_once(lanes, true);
    every_request_ends_once(lanes, false);
  }
  a_deadline_is_answered_while_the_lane_is_busy();
  close_gives_up_a_launch_that_hangs();
  close_without_drain_drops_what_waits();
  foreign_launches_are_served_from_outside();
  a_lane_without_a_server_fails_what_it_gets();
  lanes_and_tenants_are_added_under_load();
  tenants_move_between_lanes_under_load();
  std::puts("rt_executor: ok");
}
