#include "sched/route.h"

#include <tuple>

namespace st::sched {
namespace {

struct Estimate {
  TimeNs wait_ns;   // until the lane has done what it has
  TimeNs added_ns;  // what the request adds
};

// What routes compare: a request of `level` and `samples`.
struct Asked {
  TenantId tenant;
  std::uint32_t samples;
  std::int32_t level;
};

Estimate estimate(const RouteView& view, LaneId lane, const Asked& asked, TimeNs now) {
  return {view.running[lane].remaining_ns(now) + view.queues.ahead_ns(lane, asked.level),
          view.queues.added_ns(lane, asked.tenant, asked.samples)};
}

// The last word where predictions tie, or are unknown: fewer requests, then the lower id.
std::uint32_t load(const RouteView& view, LaneId lane) {
  return view.queues.lane(lane).count + (view.running[lane].busy() ? 1 : 0);
}

// The lane on which the request's answer is expected first.
LaneId least_wait(const RouteView& view, const Asked& asked, TimeNs now) {
  const FamilyId family = view.facts.tenant(asked.tenant).family;
  LaneId best = kNone;
  std::tuple<TimeNs, std::uint32_t> best_key;
  for (LaneId lane = 0; lane < view.facts.lanes(); ++lane) {
    if (!view.facts.eligible(family, lane)) continue;
    const auto [wait, added] = estimate(view, lane, asked, now);
    const std::tuple key(wait + added, load(view, lane));
    if (best != kNone && !(key < best_key)) continue;
    best = lane;
    best_key = key;
  }
  return best;
}

// ELSA (arXiv 2202.13481): the smallest size class with positive slack; inside it the least wait,
// or with first_fit the first lane. Without positive slack anywhere, the earliest finish.
LaneId elsa(const RouteView& view, const Asked& asked, TimeNs deadline, TimeNs now) {
  const Policy& policy = view.facts.policy();
  const FamilyId family = view.facts.tenant(asked.tenant).family;
  LaneId best = kNone;
  std::tuple<TimeNs, std::uint32_t> best_key;
  for (const LaneId lane : view.facts.lanes_by_units()) {
    if (!view.facts.eligible(family, lane)) continue;
    if (best != kNone && view.facts.lane(lane).units != view.facts.lane(best).units) break;
    const auto [wait, added] = estimate(view, lane, asked, now);
    const double busy = policy.elsa_alpha *
                        (static_cast<double>(wait) + policy.elsa_beta * static_cast<double>(added));
    if (deadline != kNever && busy >= static_cast<double>(deadline - now)) continue;
    if (policy.first_fit) return lane;
    const std::tuple key(wait, load(view, lane));
    if (best != kNone && !(key < best_key)) continue;
    best = lane;
    best_key = key;
  }
  return best != kNone ? best : least_wait(view, asked, now);
}

}  // namespace

LaneId Router::choose(const RouteView& view, TenantId tenant, std::uint32_t samples,
                      std::int32_t level, TimeNs deadline, TimeNs now) {
  const Asked asked{tenant, samples, level};
  switch (view.facts.policy().route) {
    case Route::kPinned:
      return view.facts.tenant(tenant).lane;
    case Route::kWeighted:
      return weighted(view.facts, tenant);
    case Route::kLeastWait:
      return least_wait(view, asked, now);
    case Route::kElsa:
      return elsa(view, asked, deadline, now);
  }
  return kNone;
}

// Smooth weighted round robin: every lane earns its weight, the richest is chosen and pays all.
LaneId Router::weighted(const Facts& facts, TenantId tenant) {
  const TenantSpec& spec = facts.tenant(tenant);
  double total = 0;
  for (const double weight : spec.lane_weights) total += weight;
  if (total == 0) return spec.lane;
  std::vector<double>& credits = credits_[tenant];
  credits.resize(spec.lane_weights.size());
  LaneId best = kNone;
  for (LaneId lane = 0; lane < credits.size(); ++lane) {
    if (spec.lane_weights[lane] == 0) continue;
    credits[lane] += spec.lane_weights[lane];
    if (best == kNone || credits[lane] > credits[best]) best = lane;
  }
  credits[best] -= total;
  return best;
}

}  // namespace st::sched
