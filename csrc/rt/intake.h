// intake.h: who may enter the executor: the room for requests, and how many are in flight.
//
// Thread safety: every function from any thread. A tenant is added and removed, and its plain
// counts are written, by the baton's holder (pump.h).
//
// Invariants:
// 1. in_flight_ counts accepted requests that have not ended. accept() raises it before it looks at
//    accepting_; shut() lowers accepting_ before anybody waits for in_flight_ to reach zero.
// 2. A tenant's `waiting` never exceeds its limit.
#pragma once

#include <atomic>
#include <cstdint>

#include "rt/pool.h"
#include "rt/request.h"
#include "rt/ring.h"
#include "rt/signal.h"
#include "rt/table.h"

namespace st::rt {

struct Submission {
  TenantId tenant = kNone;
  std::uint32_t samples = 1;
  std::int32_t priority = sched::kTenants;
  TimeNs deadline = kNever;  // an instant, not a duration
  std::uint64_t token = 0;   // the caller's name of the request
  Ticket* ticket = nullptr;  // null: the end is reported by completions()
  Ending* ending = nullptr;  // told of the end instead of either
};

enum class Refusal : std::uint8_t { kNone, kQueueFull, kNoCapacity, kClosed, kRemoved };

constexpr bool wants_room(Refusal refusal) {
  return refusal == Refusal::kQueueFull || refusal == Refusal::kNoCapacity;
}

// How much of a tenant waits, how much may, and what became of the rest.
struct Tenant {
  std::uint32_t limit = 0;
  std::uint64_t failed = 0;
  std::atomic<std::uint64_t> refused{0};  // for want of room
  LaunchId counted_in = ~LaunchId{0};     // the last launch it was counted as a member of
  std::atomic<bool> removed{false};
  alignas(kCacheLine) std::atomic<std::uint32_t> waiting{0};
};

class Intake {
 public:
  using Tenants = Table<Tenant, 1 << 16>;

  explicit Intake(std::uint32_t capacity) : requests_(capacity) {}

  Pool<InFlight>& requests() { return requests_; }
  Tenants& tenants() { return tenants_; }
  Tenant& tenant(TenantId id) const;  // throws std::out_of_range if there never was one

  // accept: writes the request, whose id is then `id`, into its place in the pool; or says why not.
  // Throws std::out_of_range for an unknown tenant, std::invalid_argument for no samples.
  Refusal accept(const Submission& submission, TimeNs now, RequestId& id);
  void wait_for_room(const Tenant& tenant, TimeNs until);
  void leave_room(Tenant& tenant);  // one of its requests waits no longer
  // make_room: wakes who waits for room that others have left.
  void make_room() {
    if (room_waiters_.load(std::memory_order_seq_cst) > 0) room_.notify();
  }
  // retire: so many requests have ended.
  void retire(std::uint64_t requests) {
    const std::uint64_t before = in_flight_.fetch_sub(requests, std::memory_order_seq_cst);
    if (before == requests && !accepting()) idle_.notify();
  }

  void shut();  // accepts nothing any more
  bool accepting() const { return accepting_.load(std::memory_order_seq_cst); }
  std::uint64_t in_flight() const { return in_flight_.load(std::memory_order_seq_cst); }
  bool wait_idle(TimeNs until);  // after shut(): until nothing is in flight; false: `until` passed

 private:
  Refusal take_room(Tenant& tenant, std::uint32_t& place);

  Pool<InFlight> requests_;
  Tenants tenants_;

  alignas(kCacheLine) std::atomic<std::uint64_t> in_flight_{0};
  std::atomic<bool> accepting_{true};
  std::atomic<std::uint32_t> room_waiters_{0};
  Signal room_;
  Signal idle_;
};

}  // namespace st::rt
