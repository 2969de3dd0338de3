// route.h: which lane a request is queued on.
#pragma once

#include <vector>

#include "sched/facts.h"
#include "sched/queues.h"
#include "sched/running.h"
#include "sched/types.h"

namespace st::sched {

// What a route reads; `running` is by lane.
struct RouteView {
  const Facts& facts;
  const Queues& queues;
  const std::vector<Running>& running;
};

class Router {
 public:
  void add_tenant() { credits_.emplace_back(); }
  void forget(TenantId tenant) { credits_[tenant].clear(); }  // its weights changed
  // choose: for a request of this level. What waits at a lower one is not ahead of it, so
  // least-wait and elsa do not count it.
  LaneId choose(const RouteView& view, TenantId tenant, std::uint32_t samples, std::int32_t level,
                TimeNs deadline, TimeNs now);

 private:
  LaneId weighted(const Facts& facts, TenantId tenant);

  std::vector<std::vector<double>> credits_;  // by tenant, by lane: smooth weighted round robin
};

}  // namespace st::sched
