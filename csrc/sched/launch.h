// launch.h: fills one launch with the requests a pick allows.
#pragma once

#include "sched/facts.h"
#include "sched/order.h"
#include "sched/queues.h"
#include "sched/running.h"
#include "sched/types.h"

namespace st::sched {

// fill: takes the pick's requests off `owner`'s queue into `out.requests`, and the shares of the
// tenants into `running`. The most urgent request is always taken; the rest go round the tenants
// by weight, each tenant's most urgent first, until one does not fit. A request larger than the
// limit is a launch of its own. Returns the number of samples.
std::uint32_t fill(const Facts& facts, Queues& queues, LaneId owner, LaneId runner,
                   const Pick& pick, Running& running, Actions& out);

}  // namespace st::sched
