// order.h: which queue of a lane a free lane serves next.
//
// fifo: the oldest request. edf: the earliest deadline among the tenants' first requests.
// priority: the same among the most urgent priority; a launch does not grow for requests of a lower
// one than its first, they only fill what would be padding (launch.cpp). fair: the tenant with the
// least service for its weight, kept per lane. duty: the lane's turns in a cycle; a turn without
// requests is skipped, and after the named turns comes one for the tenants without a turn, oldest
// request first. Ties go to the lower id. A queue whose batch rule still waits for more is passed
// over.
#pragma once

#include <optional>
#include <vector>

#include "sched/facts.h"
#include "sched/queues.h"
#include "sched/types.h"

namespace st::sched {

struct Pick {
  QueueId queue = kNone;
  TenantId tenant = kNone;  // a duty turn: only this tenant's requests
  std::uint32_t limit = 0;  // samples
  std::uint32_t turn = 0;   // duty: its place in the cycle

  bool alone() const { return tenant != kNone; }
};

class Orderer {
 public:
  Orderer(const Facts& facts, const Queues& queues) : facts_(facts), queues_(queues) {}

  void add_lane() { cycles_.emplace_back(); }
  void set_cycle(LaneId lane, std::vector<DutyTurn> turns);
  // next: what `runner` does now of the work queued on `owner`; lowers `hold` to the instant at
  // which work passed over is due.
  std::optional<Pick> next(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const;
  // took: the pick was launched, so the cycle moves on.
  void took(LaneId owner, const Pick& pick);

 private:
  struct Cycle {
    std::vector<DutyTurn> turns;
    std::uint32_t at = 0;
  };

  std::optional<Pick> best_queue(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const;
  std::optional<Pick> next_turn(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const;
  bool earlier(const Queue& a, const Queue& b) const;
  bool may_run(LaneId owner, LaneId runner, const Queue& queue, std::uint32_t samples) const;

  const Facts& facts_;
  const Queues& queues_;
  std::vector<Cycle> cycles_;  // by lane
};

}  // namespace st::sched
