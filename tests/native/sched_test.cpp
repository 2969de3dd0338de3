// sched_test.cpp: the scheduler's containers against plain ones, a long random run for the
// sanitizers, and the promise that a steady state allocates nothing.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <set>
#include <vector>

#include "sched/id_table.h"
#include "sched/indexed_heap.h"
#include "sched/presets.h"
#include "sched/scheduler.h"
#include "sim/random.h"

namespace {

std::uint64_t allocations = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

}  // namespace

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace st::sched;
using st::sim::Random;

std::uint32_t draw(Random& random, std::uint32_t below) {
  return static_cast<std::uint32_t>(random.uniform() * below);
}

struct Item {
  std::uint32_t place = kNone;
};

void test_heap_against_a_set() {
  Random random(1, 0);
  std::vector<Item> items(64);
  IndexedHeap<Item, &Item::place, std::int64_t> heap;
  std::set<std::pair<std::int64_t, std::uint32_t>> model;
  std::map<std::uint32_t, std::int64_t> keys;
  for (int step = 0; step < 200'000; ++step) {
    const std::uint32_t id = draw(random, 64);
    const std::int64_t key = draw(random, 20);
    if (!keys.contains(id)) {
      heap.push(items, key, id);
    } else {
      model.erase({keys[id], id});
      draw(random, 2) ? heap.update(items, key, id) : heap.erase(items, id);
    }
    if (items[id].place == kNone) {
      keys.erase(id);
    } else {
      keys[id] = key;
      model.insert({key, id});
    }
    check(heap.size() == model.size(), "heap: size");
    if (model.empty()) continue;
    check(std::pair(heap.top().key, heap.top().id) == *model.begin(), "heap: top");
  }
}

void test_id_table_against_a_map() {
  Random random(2, 0);
  IdTable table;
  std::map<RequestId, std::uint32_t> model;
  for (int step = 0; step < 300'000; ++step) {
    const RequestId id = std::uint64_t{draw(random, 300)} << (draw(random, 2) * 40);
    const std::uint32_t slot = draw(random, 1000);
    if (draw(random, 2)) {
      table.insert(id, slot);
      model[id] = slot;
    } else if (const auto found = model.find(id); found != model.end()) {
      table.erase(id, found->second + 1);  // another slot's: nothing happens
      check(table.find(id) == found->second, "id table: erased another's");
      table.erase(id, found->second);
      model.erase(found);
    }
    const auto found = model.find(id);
    check(table.find(id) == (found == model.end() ? kNone : found->second), "id table: find");
  }
}

// A driver in virtual time with made-up service times: events in, starts collected.
class Drive {
 public:
  Drive(const Policy& policy, std::uint64_t seed) : scheduler_(policy), random_(seed, 0) {
    for (LaneId lane = 0; lane < 4; ++lane) scheduler_.add_lane({1 + lane / 2, true});
    for (FamilyId family = 0; family < 2; ++family) {
      scheduler_.add_family({{1, 2, 4, 8}});
      for (LaneId lane = 0; lane < 4; ++lane) {
        for (const std::uint32_t bucket : {1u, 2u, 4u, 8u}) {
          scheduler_.set_latency(family, lane, bucket, 800 + 200 * bucket);
        }
      }
    }
    for (TenantId tenant = 0; tenant < 8; ++tenant) {
      scheduler_.add_tenant({tenant % 2, 0, 1.0 + tenant % 3, 32, tenant % 4, {1, 2, 1, 1}});
    }
    if (policy.order == Order::kDuty) scheduler_.set_duty(1, {{1, 4}, {5, 2}});
  }

  void step() {
    actions_.clear();
    now_ += draw(random_, 120);
    const TimeNs wake = scheduler_.next_wake();
    check(wake > last_, "next_wake: in the future");
    if (wake <= now_) {
      now_ = wake;
      scheduler_.wake(now_, actions_);
    } else if (const std::uint32_t lane = draw(random_, 4); running_[lane] != 0 && due(lane)) {
      const LaunchId launch = running_[lane];
      running_[lane] = 0;
      scheduler_.finish(launch, now_, actions_);
    } else if (draw(random_, 20) == 0) {
      scheduler_.cancel(next_ - 1 - draw(random_, 30), now_, actions_);
    } else {
      arrive();
    }
    last_ = now_;
    for (const Start& start : actions_.starts) {
      check(running_[start.lane] == 0, "a lane runs two launches");
      running_[start.lane] = start.launch;
      started_[start.lane] = now_;
      served_ += start.count;
    }
    dropped_ += actions_.drops.size();
    check(next_ == served_ + dropped_ + scheduler_.waiting(), "the account balances");
  }

 private:
  bool due(std::uint32_t lane) const { return now_ - started_[lane] > 900; }

  void arrive() {
    Request request;
    request.id = next_++;
    request.tenant = draw(random_, 8);
    request.samples = draw(random_, 10) == 0 ? 11 : 1 + draw(random_, 3);
    request.arrival = now_;
    request.deadline = draw(random_, 4) == 0 ? kNever : now_ + 500 + draw(random_, 9000);
    scheduler_.arrive(request, now_, actions_);
  }

  Scheduler scheduler_;
  Random random_;
  Actions actions_;
  TimeNs now_ = 1;
  TimeNs last_ = 0;
  RequestId next_ = 0;
  std::uint64_t served_ = 0;
  std::uint64_t dropped_ = 0;
  LaunchId running_[4] = {};
  TimeNs started_[4] = {};
};

Policy every_policy(std::uint32_t number) {
  Policy policy;
  policy.route = static_cast<Route>(number % 4);
  policy.order = static_cast<Order>(number / 4 % 5);
  policy.batch = static_cast<BatchRule>(number / 20 % 4);
  policy.timeout_ns = 400;
  policy.straggler.multiple = number % 3 == 0 ? 1.5 : 0;
  return policy;
}

void test_every_policy_for_a_long_time() {
  for (std::uint32_t number = 0; number < 80; ++number) {
    Drive drive(every_policy(number), number);
    for (int step = 0; step < 5'000; ++step) drive.step();
  }
}

// A container may still meet a new maximum and double; nothing allocates by the event.
void test_a_steady_state_allocates_nothing() {
  for (const Preset& each : kPresets) {
    Policy policy = preset(each.name);
    policy.straggler.multiple = 0;  // a straggler's queue is made when it first strays
    Drive drive(policy, 7);
    for (int step = 0; step < 200'000; ++step) drive.step();
    const std::uint64_t before = allocations;
    for (int step = 0; step < 200'000; ++step) drive.step();
    check(allocations - before < 20, "a steady state allocates nothing");
  }
}

}  // namespace

int main() {
  test_heap_against_a_set();
  test_id_table_against_a_map();
  test_every_policy_for_a_long_time();
  test_a_steady_state_allocates_nothing();
  std::puts("sched: ok");
}
