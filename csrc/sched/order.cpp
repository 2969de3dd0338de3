#include "sched/order.h"

#include <algorithm>
#include <tuple>
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
  if (lane.passed_since != kNever && lane.levels.mixed()) {
    if (std::optional<Pick> old = aged(owner, runner, now)) return old;
  }
  Found best;
  Found held;
  for (const QueueId id : lane.active) {
    const Queue& queue = lane.queues[id];
    if (queue.urgent.empty() || (best.queue != nullptr && !earlier(queue, *best.queue))) continue;
    const std::uint32_t limit = batch_limit(facts_, queues_, queue, runner);
    const std::uint32_t first =
        queues_.at(lane.cells[queue.urgent.top().id].requests.top().id).samples;
    if (!may_run(owner, runner, queue, std::max(std::min(limit, queue.samples), first))) continue;
    if (const TimeNs due = hold_until(facts_, queues_, queue, runner); now < due) {
      hold = std::min(hold, due);
      if (held.queue == nullptr || earlier(queue, *held.queue)) held = {&queue, id, limit};
      continue;
    }
    best = {&queue, id, limit};
  }
  if (best.queue == nullptr) return std::nullopt;
  if (held.queue != nullptr && Queues::top_level(*held.queue) > Queues::top_level(*best.queue)) {
    best = held;
  }
  return Pick{.queue = best.id, .limit = best.limit, .level = Queues::top_level(*best.queue)};
}

// aged: the launch that begins below the highest level, when it is time for one.
std::optional<Pick> Orderer::aged(LaneId owner, LaneId runner, TimeNs now) const {
  const LaneQueues& lane = queues_.lane(owner);
  if (now - lane.passed_since < facts_.policy().age_ns) return std::nullopt;
  std::optional<Pick> found;
  std::uint64_t oldest = 0;
  for (const QueueId id : lane.active) {
    const Queue& queue = lane.queues[id];
    const std::uint32_t limit = batch_limit(facts_, queues_, queue, runner);
    const TimeNs took = queues_.predicted_ns(queue, runner, std::min(limit, queue.samples));
    const TimeNs due = facts_.policy().shed ? now + took : now;  // what would be late is left
    const std::uint32_t slot = queues_.oldest_below(owner, id, lane.levels.highest(), due);
    if (slot == kNone) continue;
    const Waiting& request = queues_.at(slot);
    if (found && request.seq > oldest) continue;
    const std::uint32_t most = std::max(std::min(limit, queue.samples), request.samples);
    if (!may_run(owner, runner, queue, most)) continue;
    found = Pick{.queue = id, .limit = limit, .slot = slot, .level = request.level};
    oldest = request.seq;
  }
  return found;
}

std::optional<Pick> Orderer::next_turn(LaneId owner, LaneId runner, TimeNs now,
                                       TimeNs& hold) const {
  const Cycle& cycle = cycles_[owner];
  const auto named = static_cast<std::uint32_t>(cycle.turns.size());
  std::optional<Pick> best;
  std::uint32_t idle = kNone;  // the first named turn without requests
  for (std::uint32_t step = 0; step <= named; ++step) {
    const std::uint32_t turn = (cycle.at + step) % (named + 1);
    std::optional<Pick> pick =
        turn == named ? best_queue(owner, runner, now, hold) : named_turn(owner, runner, turn);
    if (!pick) {
      if (!best && idle == kNone && turn < named) idle = turn;
      continue;
    }
    pick->turn = turn;
    if (!best) {
      best = pick;
      if (idle == kNone || !queues_.lane(owner).levels.mixed()) return best;
    } else if (pick->level > best->level) {
      best = pick;
      best->turn = idle;
    }
  }
  return best;
}

std::optional<Pick> Orderer::named_turn(LaneId owner, LaneId runner, std::uint32_t turn) const {
  const auto [tenant, batch] = cycles_[owner].turns[turn];
  const Cell& cell = queues_.lane(owner).cells[tenant];
  if (cell.requests.empty()) return std::nullopt;
  const Queue& queue = queues_.queue(owner, cell.queue);
  const std::uint32_t largest = facts_.largest(queue.family, runner);
  const bool one = facts_.policy().batch == BatchRule::kOne;
  const std::uint32_t limit = one ? 1 : std::min(batch, largest);
  const Waiting& first = queues_.at(cell.requests.top().id);
  const std::uint32_t most = std::max(std::min(limit, cell.samples), first.samples);
  if (!may_run(owner, runner, queue, most)) return std::nullopt;
  return Pick{.queue = cell.queue, .tenant = tenant, .limit = limit, .level = first.level};
}

bool Orderer::earlier(const Queue& a, const Queue& b) const {
  if (facts_.policy().order != Order::kFair) return a.urgent.top().key < b.urgent.top().key;
  const auto& x = a.turns.top();
  const auto& y = b.turns.top();
  return std::tuple(x.key.rank, x.key.pass, x.id) < std::tuple(y.key.rank, y.key.pass, y.id);
}

bool Orderer::may_run(LaneId owner, LaneId runner, const Queue& queue,
                      std::uint32_t samples) const {
  if (owner == runner) return true;
  if (queue.solo != kNone && facts_.policy().straggler_lane != kNone) return false;
  return facts_.knows(queue.family, runner) &&
         queues_.predicted_ns(queue, runner, samples) <= facts_.policy().max_borrow_ns;
}

}  // namespace st::sched
