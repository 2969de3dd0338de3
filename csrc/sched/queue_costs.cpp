// queue_costs.cpp: the predicted time of what waits, which routes and lending compare.
#include <cmath>

#include "sched/queues.h"

namespace st::sched {
namespace {

TimeNs scaled(TimeNs value, double factor) {
  return static_cast<TimeNs>(std::llround(static_cast<double>(value) * factor));
}

}  // namespace

double Queues::factor(const Queue& queue, LaneId runner) const {
  return queue.solo == kNone ? facts_.factor(queue.family, runner) : queue.slowdown;
}

TimeNs Queues::predicted_ns(const Queue& queue, LaneId runner, std::uint32_t samples) const {
  if (queue.solo == kNone) return facts_.predicted_ns(queue.family, runner, samples);
  return scaled(facts_.base_ns(queue.family, runner, samples), queue.slowdown);
}

// Full launches of the largest bucket and one for the rest; under rule one, each by itself.
TimeNs Queues::work_ns(const Queue& queue, LaneId runner, std::uint32_t samples) const {
  if (samples == 0) return 0;
  if (facts_.policy().batch == BatchRule::kOne) {
    return scaled(queue.single_ns, factor(queue, runner));
  }
  const std::uint32_t largest = facts_.largest(queue.family, runner);
  const std::uint32_t full = samples / largest;
  const std::uint32_t rest = samples % largest;
  const TimeNs rest_ns = rest == 0 ? 0 : predicted_ns(queue, runner, rest);
  return full == 0 ? rest_ns : full * predicted_ns(queue, runner, largest) + rest_ns;
}

TimeNs Queues::added_ns(LaneId lane, TenantId tenant, std::uint32_t samples) const {
  const Queue& queue = lanes_[lane].queues[queue_of_[tenant]];
  if (facts_.policy().batch == BatchRule::kOne) return predicted_ns(queue, lane, samples);
  return work_ns(queue, lane, queue.samples + samples) - queue.work_ns;
}

TimeNs Queues::ahead_ns(LaneId lane_id, std::int32_t level) const {
  const LaneQueues& lane = lanes_[lane_id];
  if (!lane.levels.below(level)) return lane.work_ns;
  return scaled(lane.work_ns, lane.levels.part_from(level));
}

void Queues::reprice(LaneId lane, FamilyId family) {
  Queue& queue = lanes_[lane].queues[family_queue_[family]];
  if (queue.count > 0) recost(lanes_[lane], queue, lane);
}

void Queues::recount(LaneId lane_id, FamilyId family) {
  LaneQueues& lane = lanes_[lane_id];
  for (const QueueId id : lane.active) {
    Queue& queue = lane.queues[id];
    if (queue.family != family) continue;
    queue.single_ns = 0;
    for (const Cell& cell : lane.cells) {
      if (cell.queue != id) continue;
      for (const auto& entry : cell.requests.entries()) {
        queue.single_ns += facts_.base_ns(family, lane_id, pool_[entry.id].samples);
      }
    }
    recost(lane, queue, lane_id);
  }
}

}  // namespace st::sched
