#include "sched/fill.h"

#include <algorithm>

namespace st::sched {
namespace {

constexpr TimeNs kReserve = 4;  // one part of so many: decision 7

// What one sample is charged at the start: under order fair the lane time it is expected to take,
// else one unit.
double price(const Facts& facts, const Queue& queue, LaneId runner) {
  if (facts.policy().order != Order::kFair) return 1.0;
  const std::uint32_t largest = facts.largest(queue.family, runner);
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

// Of the time a request could wait, what is kept for launches that take longer than predicted.
TimeNs reserve(const Waiting& request, TimeNs latest) {
  return std::max<TimeNs>(latest - request.arrival, 0) / kReserve;
}

// Whether the launch, as large as it can become, would answer the request too late, or so late that
// another goes in its place: see fill().
bool hopeless(const Facts& facts, const Queues& queues, const Site& site, const Pick& pick,
              const Waiting& request, std::uint32_t total) {
  if (!facts.policy().shed || request.deadline == kNever) return false;
  const Queue& queue = queues.queue(site.owner, pick.queue);
  const Cell& cell = queues.lane(site.owner).cells[request.tenant];
  const bool only_cell = pick.alone() || queue.turns.size() == 1;
  if (total == 0 && only_cell && cell.requests.size() == 1) return false;
  // Others may not ride along, see delays_the_more_urgent().
  const bool own = pick.alone() || queues.lane(site.owner).levels.mixed();
  const std::uint32_t waiting = own ? cell.samples : queue.samples;
  const std::uint32_t samples =
      std::max(std::min(pick.limit, total + waiting), total + request.samples);
  const TimeNs predicted = queues.predicted_ns(queue, site.runner, samples);
  const bool replaced = total + waiting - request.samples >= pick.limit;
  const TimeNs latest = request.deadline - predicted;  // start that is predicted to be in time
  return site.now > latest - (replaced ? reserve(request, latest) : 0);
}

// The tenant of the next request: the most urgent one's until the launch has its first.
TenantId next_tenant(const Facts& facts, const Queue& queue, const Pick& pick, bool first) {
  if (pick.alone()) return pick.tenant;
  if (queue.turns.empty()) return kNone;
  const bool by_urgency = first && facts.policy().order != Order::kFair;
  return by_urgency ? queue.urgent.top().id : queue.turns.top().id;
}

// Whether the launch, whose requests are more urgent than this one, would grow for its sake: who is
// less urgent rides in padding, or not at all.
bool delays_the_more_urgent(const Facts& facts, const Queue& queue, std::int32_t first,
                            const Waiting& request, std::uint32_t total) {
  return request.level < first && total + request.samples > facts.bucket(queue.family, total);
}

}  // namespace

std::uint32_t fill(const Facts& facts, Queues& queues, const Site& site, const Pick& pick,
                   Running& running, Actions& out) {
  const Queue& queue = queues.queue(site.owner, pick.queue);
  const double unit = price(facts, queue, site.runner);
  std::uint32_t total = 0;
  std::int32_t first = 0;            // level of the launch's first request
  std::uint32_t chosen = pick.slot;  // goes before all others
  queues.begin_turn(site.owner, pick.queue);
  while (total == 0 || total < pick.limit) {
    const bool aged = chosen != kNone;
    const TenantId tenant =
        aged ? queues.at(chosen).tenant : next_tenant(facts, queue, pick, total == 0);
    if (tenant == kNone) break;
    const Cell& cell = queues.lane(site.owner).cells[tenant];
    if (cell.requests.empty()) break;
    const std::uint32_t slot = aged ? chosen : cell.requests.top().id;
    const Waiting& request = queues.at(slot);
    chosen = kNone;
    if (!aged && hopeless(facts, queues, site, pick, request, total)) {
      out.drops.push_back({request.id, tenant, DropReason::kDeadline});
      queues.take(slot);
      continue;
    }
    const std::uint32_t samples = request.samples;
    if (total > 0 && total + samples > pick.limit) break;
    if (total == 0) first = request.level;
    if (delays_the_more_urgent(facts, queue, first, request, total)) break;
    out.requests.push_back(queues.take(slot).id);
    queues.charge(site.owner, tenant, samples * unit);
    note_share(running, tenant, samples, samples * unit);
    total += samples;
  }
  if (!pick.alone()) queues.began(site.owner, first, pick.slot != kNone, site.now);
  return total;
}

}  // namespace st::sched
