#include "sched/batch.h"

#include <algorithm>
#include <cmath>

namespace st::sched {
namespace {

constexpr TimeNs kNow = std::numeric_limits<TimeNs>::min();

// The first instant t with (need * (t - last) >= saved), b) of rule slack.
TimeNs pays_until(const Queue& queue, TimeNs saved, std::uint32_t need) {
  if (need * queue.gap_ns >= static_cast<double>(saved)) return kNow;
  return queue.last_arrival + (saved + need - 1) / need;
}

// The first instant t with t + need * max(gap, t - last) + latency >= deadline, a) of rule slack.
TimeNs meets_until(const Queue& queue, TimeNs latency, std::uint32_t need) {
  if (queue.watch.empty()) return kNever;
  const TimeNs latest = queue.watch.top().key - latency;
  const TimeNs by_mean = latest - static_cast<TimeNs>(std::ceil(need * queue.gap_ns));
  const double by_silence =
      static_cast<double>(latest - queue.last_arrival) / (1.0 + static_cast<double>(need));
  return std::min(by_mean, queue.last_arrival + static_cast<TimeNs>(std::ceil(by_silence)));
}

TimeNs slack_until(const Facts& facts, const Queues& queues, const Queue& queue, LaneId runner) {
  const std::uint32_t have = queue.samples;
  if (queue.gap_ns < 0) return kNow;
  const std::uint32_t next = facts.bucket(queue.family, have + 1);
  const std::uint32_t need = next - have;
  const TimeNs together = queues.predicted_ns(queue, runner, next);
  const TimeNs apart =
      queues.predicted_ns(queue, runner, have) + queues.predicted_ns(queue, runner, need);
  return std::min(pays_until(queue, apart - together, need), meets_until(queue, together, need));
}

}  // namespace

TimeNs hold_until(const Facts& facts, const Queues& queues, const Queue& queue, LaneId runner) {
  const BatchRule rule = facts.policy().batch;
  if (rule == BatchRule::kOne || rule == BatchRule::kGreedy) return kNow;
  if (facts.policy().order == Order::kDuty) return kNow;  // a turn is not delayed
  if (queue.samples >= facts.largest(queue.family, runner)) return kNow;
  if (rule == BatchRule::kTimeout) return queue.watch.top().key + facts.policy().timeout_ns;
  return slack_until(facts, queues, queue, runner);
}

std::uint32_t batch_limit(const Facts& facts, const Queues& queues, const Queue& queue,
                          LaneId runner) {
  const BatchRule rule = facts.policy().batch;
  const std::uint32_t largest = facts.largest(queue.family, runner);
  if (rule == BatchRule::kOne) return 1;
  if (rule != BatchRule::kSlack || queue.samples >= largest) return largest;
  const std::uint32_t have = queue.samples;
  const std::uint32_t full = facts.bucket_below(queue.family, have);
  if (full == 0 || full == have) return have;
  const TimeNs padded = queues.predicted_ns(queue, runner, have);
  const TimeNs split =
      queues.predicted_ns(queue, runner, full) + queues.predicted_ns(queue, runner, have - full);
  return padded <= split ? have : full;
}

}  // namespace st::sched
