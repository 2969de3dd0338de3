// queues.h: every waiting request, and the sums the decisions read.
//
// A *queue* holds the requests on one lane that may share a launch: those of a family, or those of
// one straggling tenant (solo). A *cell* is one tenant's part of it, most urgent request first.
// Requests live in one pool of cache-line sized slots; heaps hold slot numbers.
//
// Invariants:
// 1. A waiting request is in its cell, in the id table, in the deadline heap if it has a deadline,
//    and in its queue's watch heap if the batch rule watches it; and in nothing after take().
// 2. A queue is in its lane's `active` list exactly while it holds requests.
// 3. LaneQueues::work_ns is the sum of Queue::work_ns over the lane, LaneQueues::levels counts the
//    samples of what waits there.
// 4. Every heap of requests, tenants or turns begins with the highest level in it.
#pragma once

#include <compare>
#include <cstdint>
#include <utility>
#include <vector>

#include "sched/facts.h"
#include "sched/id_table.h"
#include "sched/indexed_heap.h"
#include "sched/levels.h"
#include "sched/types.h"

namespace st::sched {

using QueueId = std::uint32_t;  // the same number names a family's queue on every lane

struct Waiting {
  RequestId id = 0;
  TimeNs arrival = 0;
  TimeNs deadline = kNever;
  std::uint64_t seq = 0;  // order of arrival
  TenantId tenant = kNone;
  std::uint32_t samples = 0;
  LaneId lane = kNone;
  std::int32_t level = 0;  // its own priority, or the tenant's
  std::uint32_t cell_place = kNone;
  std::uint32_t watch_place = kNone;
  std::uint32_t deadline_place = kNone;
};

// Urgency: smaller is more urgent.
struct Urgency {
  std::int64_t rank = 0;  // minus the level
  TimeNs time = 0;        // deadline, where it counts
  std::uint64_t seq = 0;
  auto operator<=>(const Urgency&) const = default;
};

// Turn: smaller is served earlier. `pass` is service received over weight.
struct Turn {
  std::int64_t rank = 0;
  double pass = 0;
  auto operator<=>(const Turn&) const = default;
};

struct Cell {
  IndexedHeap<Waiting, &Waiting::cell_place, Urgency> requests;
  double pass = 0;
  QueueId queue = kNone;
  std::uint32_t samples = 0;
  bool in_cycle = false;  // order duty names the tenant: its own turn serves it
  std::uint32_t urgent_place = kNone;
  std::uint32_t turn_place = kNone;
};

struct Queue {
  FamilyId family = kNone;
  TenantId solo = kNone;    // the straggler, kNone for the family's queue
  std::uint32_t count = 0;  // requests
  std::uint32_t samples = 0;
  TimeNs work_ns = 0;     // predicted time to serve what waits
  TimeNs single_ns = 0;   // batch rule one: sum of the base predictions
  double slowdown = 1.0;  // solo: the straggler's own ratio
  double pass = 0;        // least pass served so far: where a newcomer starts
  double gap_ns = -1.0;   // mean time between samples, negative until known
  TimeNs last_arrival = kNever;
  std::uint32_t active_place = kNone;
  IndexedHeap<Cell, &Cell::urgent_place, Urgency> urgent;
  IndexedHeap<Cell, &Cell::turn_place, Turn> turns;
  IndexedHeap<Waiting, &Waiting::watch_place, TimeNs> watch;  // deadlines, or arrivals (timeout)
};

struct LaneQueues {
  std::vector<Cell> cells;    // by tenant
  std::vector<Queue> queues;  // by QueueId
  std::vector<QueueId> active;
  std::uint32_t count = 0;  // requests
  TimeNs work_ns = 0;
  double pass = 0;  // order fair: least pass served so far on the lane
  Levels levels;
  TimeNs passed_since = kNever;  // its launches have left lower levels waiting since then
};

class Queues {
 public:
  explicit Queues(const Facts& facts) : facts_(facts) {}

  void add_lane();
  void add_family(FamilyId family);
  void add_tenant(TenantId tenant);
  // solo / fuse: where the tenant's requests queue from now on; what waits must be lifted before.
  void solo(TenantId tenant);
  void fuse(TenantId tenant);
  void set_slowdown(TenantId tenant, double slowdown);
  void set_cycle(LaneId lane, const std::vector<DutyTurn>& turns);

  void put(const Request& request, LaneId lane);
  Waiting take(std::uint32_t slot);
  // lift: takes all of a tenant's requests (kNone: everybody's), oldest first, into `out`.
  void lift(TenantId tenant, std::vector<Waiting>& out);
  void put_back(const Waiting& waiting, LaneId lane);

  std::uint32_t find(RequestId id) const { return ids_.find(id); }
  // expired: a slot whose deadline is <= now, kNone if there is none.
  std::uint32_t expired(TimeNs now) const;
  TimeNs next_deadline() const { return deadlines_.empty() ? kNever : deadlines_.top().key.first; }

  std::uint64_t count() const { return count_; }
  std::uint32_t count(TenantId tenant) const { return waiting_[tenant]; }
  const LaneQueues& lane(LaneId lane) const { return lanes_[lane]; }
  const Queue& queue(LaneId lane, QueueId queue) const { return lanes_[lane].queues[queue]; }
  QueueId queue_of(TenantId tenant) const { return queue_of_[tenant]; }
  const Waiting& at(std::uint32_t slot) const { return pool_[slot]; }
  // level_of: what a request counts as. top_level: of the queue's most urgent request.
  std::int32_t level_of(const Request& request) const {
    return request.priority == kTenants ? facts_.tenant(request.tenant).priority : request.priority;
  }
  static std::int32_t top_level(const Queue& queue) {
    return static_cast<std::int32_t>(-queue.urgent.top().key.rank);
  }
  // oldest_below: the slot of the queue's oldest request of a lower level whose deadline is after
  // `due`, kNone if there is none. Looks at all that wait in the queue, but for tenants with a turn
  // of their own.
  std::uint32_t oldest_below(LaneId lane, QueueId queue, std::int32_t level, TimeNs due) const;
  // ahead_ns: predicted time of what waits on the lane at this level or above it: of all that
  // waits, the part of its samples.
  TimeNs ahead_ns(LaneId lane, std::int32_t level) const;

  // predicted_ns on `runner` of a launch of the queue; work_ns of `samples` waiting there.
  TimeNs predicted_ns(const Queue& queue, LaneId runner, std::uint32_t samples) const;
  TimeNs work_ns(const Queue& queue, LaneId runner, std::uint32_t samples) const;
  // added_ns: what a request more adds to the work of the tenant's queue on a lane.
  TimeNs added_ns(LaneId lane, TenantId tenant, std::uint32_t samples) const;
  // reprice: the correction of the family on the lane changed; recount: its base predictions did.
  void reprice(LaneId lane, FamilyId family);
  void recount(LaneId lane, FamilyId family);

  void begin_turn(LaneId lane, QueueId queue);
  void charge(LaneId lane, TenantId tenant, double service);
  // began: a launch of the lane's work began at this level; `aged` if it went before a higher one.
  void began(LaneId lane, std::int32_t level, bool aged, TimeNs now);

 private:
  std::uint32_t slot_for(const Waiting& waiting);
  void link(std::uint32_t slot);
  void join(LaneQueues& lane, Cell& cell);
  void add_queue(FamilyId family, TenantId solo);
  void rekey(LaneId lane, TenantId tenant);
  void recost(LaneQueues& lane, Queue& queue, LaneId runner);
  void count_change(LaneId lane, Queue& queue, const Waiting& waiting, int sign);
  void activate(LaneQueues& lane, QueueId queue);
  void retire(LaneQueues& lane, QueueId queue);
  void note_gap(LaneId lane, const Waiting& waiting);
  bool watched(const Waiting& waiting, TimeNs& key) const;
  Urgency cell_urgency(const Waiting& waiting) const;
  Urgency queue_urgency(const Waiting& waiting) const;
  double factor(const Queue& queue, LaneId runner) const;
  double& floor_pass(LaneQueues& lane, Queue& queue) const;

  using DeadlineKey = std::pair<TimeNs, std::uint64_t>;

  const Facts& facts_;
  std::vector<LaneQueues> lanes_;
  std::vector<std::pair<FamilyId, TenantId>> queue_kinds_;  // by QueueId: family, solo tenant
  std::vector<QueueId> family_queue_;                       // by family
  std::vector<QueueId> solo_queue_;                         // by tenant, kNone until first needed
  std::vector<QueueId> queue_of_;                           // by tenant
  std::vector<std::uint32_t> waiting_;                      // by tenant
  std::vector<Waiting> pool_;
  std::vector<std::uint32_t> free_;
  IdTable ids_;
  IndexedHeap<Waiting, &Waiting::deadline_place, DeadlineKey> deadlines_;
  std::uint64_t count_ = 0;
  std::uint64_t next_seq_ = 0;
};

}  // namespace st::sched
