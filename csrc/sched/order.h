// order.h: which queue of a lane a free lane serves next.
//
// Levels come first, under every order: a launch begins at the highest level that waits on the
// lane. Among what waits at that level,
// fifo: the oldest request. edf: the earliest deadline among the tenants' first requests; priority:
// its other name. fair: the tenant with the least service for its weight, kept per lane. duty: the
// lane's turns in a cycle; after the named turns comes one for the tenants without a turn, oldest
// request first. Ties go to the lower id.
//
// A queue whose batch rule still waits for more is passed over, unless what would start in its
// place is of a lower level: then it waits no longer.
//
// duty: the plan's turns are kept. A tenant has its turn whatever its level, which acts inside the
// turn, on a request's own priority. A turn without requests is skipped; only if somebody of a
// higher level waits than whose turn is next, it is given to the highest level, in addition to its
// own turn.
//
// Age: once a lane has passed over lower levels for Policy::age_ns, at every launch since, one
// launch begins with the oldest request below the highest level; the time starts anew with the next
// that passes somebody over, so that launches longer than the age turn no level upside down. With k
// older requests of lower levels on its lane, a request of a lower level begins after at most
// (k + 1) * (age + 2 * the longest launch), whatever higher levels ask for, or is dropped at
// its deadline. With Policy::shed what its launch would answer too late does not count as oldest.
// Turns of a duty cycle are no part of this: who has one is not passed over.
#pragma once

#include <optional>
#include <vector>

#include "sched/facts.h"
#include "sched/queues.h"
#include "sched/types.h"

namespace st::sched {

struct Pick {
  QueueId queue = kNone;
  TenantId tenant = kNone;     // a duty turn: only this tenant's requests
  std::uint32_t limit = 0;     // samples
  std::uint32_t turn = 0;      // duty: its place in the cycle
  std::uint32_t slot = kNone;  // the request that begins it by its age, not by its level
  std::int32_t level = 0;      // of the request that begins it

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

  // The choice among the queues so far: what is due, and what its batch rule still holds back.
  struct Found {
    const Queue* queue = nullptr;
    QueueId id = kNone;
    std::uint32_t limit = 0;
  };

  std::optional<Pick> best_queue(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const;
  std::optional<Pick> aged(LaneId owner, LaneId runner, TimeNs now) const;
  std::optional<Pick> next_turn(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const;
  std::optional<Pick> named_turn(LaneId owner, LaneId runner, std::uint32_t turn) const;
  bool earlier(const Queue& a, const Queue& b) const;
  bool may_run(LaneId owner, LaneId runner, const Queue& queue, std::uint32_t samples) const;

  const Facts& facts_;
  const Queues& queues_;
  std::vector<Cycle> cycles_;  // by lane
};

}  // namespace st::sched
