#include "sched/order.h"

#include <algorithm>
#include <utility>

#include "sched/batch.h"

namespace st::sched {

void Orderer::set_cycle(LaneId lane, std::vector<DutyTurn> turns) {
  cycles_[lane] = {std::move(turns), 0};
}

std::optional<Pick> Orderer::next(LaneId owner, LaneId runner, TimeNs now, TimeNs& hold) const {
  if (facts_.policy().order == Order::kDuty) return next_turn(owner, runner, now, hold);
  return best_queue(owner, runner, now, hold);
}

void Orderer::took(LaneId owner, const Pick& pick) {
  if (facts_.policy().order != Order::kDuty) return;
  Cycle& cycle = cycles_[owner];
  cycle.at = (pick.turn + 1) % static_cast<std::uint32_t>(cycle.turns.size() + 1);
}

std::optional<Pick> Orderer::best_queue(LaneId owner, LaneId runner, TimeNs now,
                                        TimeNs& hold) const {
  const LaneQueues& lane = queues_.lane(owner);
  const Queue* best = nullptr;
  QueueId best_id = kNone;
  std::uint32_t best_limit = 0;
  for (const QueueId id : lane.active) {
    const Queue& queue = lane.queues[id];
    if (queue.urgent.empty() || (best != nullptr && !earlier(queue, *best))) continue;
    const std::uint32_t limit = batch_limit(facts_, queues_, queue, runner);
    const std::uint32_t first =
        queues_.at(lane.cells[queue.urgent.top().id].requests.top().id).samples;
    if (!may_run(owner, runner, queue, std::max(std::min(limit, queue.samples), first))) continue;
    if (const TimeNs due = hold_until(facts_, queues_, queue, runner); now < due) {
      hold = std::min(hold, due);
      continue;
    }
    best = &queue;
    best_id = id;
    best_limit = limit;
  }
  if (best == nullptr) return std::nullopt;
  return Pick{best_id, kNone, best_limit, 0};
}

std::optional<Pick> Orderer::next_turn(LaneId owner, LaneId runner, TimeNs now,
                                       TimeNs& hold) const {
  const Cycle& cycle = cycles_[owner];
  const auto named = static_cast<std::uint32_t>(cycle.turns.size());
  const bool one = facts_.policy().batch == BatchRule::kOne;
  for (std::uint32_t step = 0; step <= named; ++step) {
    const std::uint32_t turn = (cycle.at + step) % (named + 1);
    if (turn == named) {
      std::optional<Pick> rest = best_queue(owner, runner, now, hold);
      if (rest) rest->turn = turn;
      if (rest) return rest;
      continue;
    }
    const TenantId tenant = cycle.turns[turn].tenant;
    const Cell& cell = queues_.lane(owner).cells[tenant];
    if (cell.requests.empty()) continue;
    const Queue& queue = queues_.queue(owner, cell.queue);
    const std::uint32_t largest = facts_.largest(queue.family, runner);
    const std::uint32_t limit = one ? 1 : std::min(cycle.turns[turn].batch, largest);
    const std::uint32_t first = queues_.at(cell.requests.top().id).samples;
    if (!may_run(owner, runner, queue, std::max(std::min(limit, cell.samples), first))) continue;
    return Pick{cell.queue, tenant, limit, turn};
  }
  return std::nullopt;
}

bool Orderer::earlier(const Queue& a, const Queue& b) const {
  if (facts_.policy().order != Order::kFair) return a.urgent.top().key < b.urgent.top().key;
  const auto& x = a.turns.top();
  const auto& y = b.turns.top();
  return std::pair(x.key.pass, x.id) < std::pair(y.key.pass, y.id);
}

bool Orderer::may_run(LaneId owner, LaneId runner, const Queue& queue,
                      std::uint32_t samples) const {
  if (owner == runner) return true;
  if (queue.solo != kNone && facts_.policy().straggler_lane != kNone) return false;
  return facts_.knows(queue.family, runner) &&
         queues_.predicted_ns(queue, runner, samples) <= facts_.policy().max_borrow_ns;
}

}  // namespace st::sched
