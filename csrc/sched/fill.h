// fill.h: fills one launch with the requests a pick allows.
#pragma once

#include "sched/facts.h"
#include "sched/order.h"
#include "sched/queues.h"
#include "sched/running.h"
#include "sched/types.h"

namespace st::sched {

// Where and when: `runner` takes work queued on `owner`.
struct Site {
  LaneId owner = kNone;
  LaneId runner = kNone;
  TimeNs now = 0;
};

// fill: takes the pick's requests off the owner's queue into `out.requests`, and the shares of the
// tenants into `running`. The most urgent request is always taken; the rest go round the tenants
// by weight, each tenant's most urgent first, until one does not fit. A request larger than the
// limit is a launch of its own. Requests of a lower level than the first fill only what would be
// padding: the launch does not grow for them. Returns the number of samples, at least 1.
//
// With Policy::shed a request that this launch, as large as it can become, is predicted to answer
// after its deadline is dropped instead (the early drop of Nexus): serving it would make the next
// one late too. While enough others wait to fill the launch without it, so that dropping costs no
// throughput, it goes already when three quarters of the time it could wait are over: in a lasting
// overload every request is served as late as this rule lets it, and on the edge of its deadline
// any launch slower than predicted would be work for nothing. The last request is served even so,
// or a wrong prediction would never be corrected. While several levels wait on the lane, only the
// same tenant's requests count as others: nobody is dropped to make room for a lower level, and
// lower levels, whose turn comes later, are what is shed.
std::uint32_t fill(const Facts& facts, Queues& queues, const Site& site, const Pick& pick,
                   Running& running, Actions& out);

}  // namespace st::sched
