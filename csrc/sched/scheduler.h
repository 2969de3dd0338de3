// scheduler.h: the state machine that applies a policy. Events in, actions out.
//
// Owns every waiting request and the book-keeping of running launches. Knows no clock, no thread,
// no device: `now` is an argument and never goes back. Not thread safe; one driver at a time.
//
// Invariants:
// 1. Every request given to arrive() leaves through exactly one Start or one Drop.
// 2. A lane has at most one launch between its Start and its finish().
// 3. After wake(now) no waiting request has deadline <= now; next_wake() is the next instant at
//    which the scheduler wants to be woken, whatever else happens.
//
// Events that share an instant are handled in the order of the calls; inside a call: deadlines
// first (by deadline, then arrival), then the event itself, then free lanes by id serve their own
// queues, then free lanes by id borrow. A driver that can choose calls finish, arrive, wake.
#pragma once

#include <memory>
#include <span>

#include "sched/types.h"

namespace st::sched {

class Scheduler {
 public:
  explicit Scheduler(const Policy& policy);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  LaneId add_lane(const LaneSpec& spec);
  FamilyId add_family(const FamilySpec& spec);
  TenantId add_tenant(const TenantSpec& spec);
  void set_duty(LaneId lane, std::vector<DutyTurn> turns);

  // set_latency: predicted time of a launch of `bucket` samples; kNever-free, corrected on line.
  void set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns);
  // remove_tenant drops what waits (kRemoved); its running launches finish as usual.
  void remove_tenant(TenantId tenant, TimeNs now, Actions& out);

  // set_routes: arrivals follow `routes` from now on. What waits keeps its lane and its turn there,
  // so the change answers nothing later than the lane would have; `move` takes it along instead
  // (to a lane that is quicker or must be emptied), queued anew by order of arrival, deadlines
  // kept.
  void set_routes(TenantId tenant, Routes routes, bool move, TimeNs now, Actions& out);
  // set_batch: see Facts. Lanes, families, latencies, batches and duty may change at any time.
  void set_batch(FamilyId family, LaneId lane, std::uint32_t samples, TimeNs now, Actions& out);
  // close_lane: for good; its id is not used again. A launch that runs there finishes as usual.
  // Throws std::invalid_argument while requests wait there or routes lead there.
  void close_lane(LaneId lane);

  void arrive(const Request& request, TimeNs now, Actions& out);
  // arrive of several: all are queued before any starts, so a burst can share a launch.
  void arrive(std::span<const Request> requests, TimeNs now, Actions& out);
  // cancel drops a waiting request (kCancelled); false if it has started or is unknown.
  bool cancel(RequestId request, TimeNs now, Actions& out);
  void finish(LaunchId launch, TimeNs now, Actions& out);
  void wake(TimeNs now, Actions& out);
  // drop_all empties every queue (kClosed); nothing starts any more.
  void drop_all(TimeNs now, Actions& out);

  TimeNs next_wake() const;
  std::uint64_t waiting() const;  // requests queued
  std::uint64_t running() const;  // launches between Start and finish
  // load: requests that wait on the lane, and 1 while it runs a launch. 0 = drained.
  std::uint64_t load(LaneId lane) const;
  bool straggling(TenantId tenant) const;
  TimeNs predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) const;  // corrected

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace st::sched
