#include "sched/launch.h"

#include <algorithm>

namespace st::sched {
namespace {

// What one sample is charged at the start: under order fair the lane time it is expected to take,
// else one unit.
double price(const Facts& facts, const Queue& queue, LaneId runner) {
  if (facts.policy().order != Order::kFair) return 1.0;
  const std::uint32_t largest = facts.largest(queue.family);
  const double batch_ns = static_cast<double>(facts.predicted_ns(queue.family, runner, largest));
  return std::max(1.0, batch_ns / largest);
}

void note_share(Running& running, TenantId tenant, std::uint32_t samples, double charged) {
  for (Share& share : running.shares) {
    if (share.tenant != tenant) continue;
    share.samples += samples;
    share.charged += charged;
    return;
  }
  running.shares.push_back({tenant, samples, charged});
}

}  // namespace

std::uint32_t fill(const Facts& facts, Queues& queues, LaneId owner, LaneId runner,
                   const Pick& pick, Running& running, Actions& out) {
  const Queue& queue = queues.queue(owner, pick.queue);
  const double unit = price(facts, queue, runner);
  std::uint32_t total = 0;
  TenantId tenant = pick.tenant;
  queues.begin_turn(owner, pick.queue);
  do {
    const Cell& cell = queues.lane(owner).cells[tenant];
    if (cell.requests.empty()) break;
    const std::uint32_t slot = cell.requests.top().id;
    const std::uint32_t samples = queues.at(slot).samples;
    if (total > 0 && total + samples > pick.limit) break;
    out.requests.push_back(queues.take(slot).id);
    queues.charge(owner, tenant, samples * unit);
    note_share(running, tenant, samples, samples * unit);
    total += samples;
    if (!pick.alone) tenant = queue.turns.empty() ? kNone : queue.turns.top().id;
  } while (tenant != kNone && total < pick.limit);
  return total;
}

}  // namespace st::sched
