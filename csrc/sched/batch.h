// batch.h: how many requests a launch takes, and how long a free lane waits for more.
//
// Rule slack (ours). A lane is free, k samples of a family wait, b' is the next bucket above k.
// Let gap be the mean time between the family's samples on this lane, or the time since the last
// one where that is longer, and fill = (b' - k) * gap the time until b' is expected to be full.
// The lane waits only while (a) now + fill + L(b') is before every member's deadline, and (b) it
// pays: the lane time saved, L(bucket(k)) + L(bucket(b' - k)) - L(b'), exceeds fill, the lane time
// spent idle. Both conditions only weaken as time passes, so the instant at which the first of
// them fails is known beforehand: hold_until. A change of the queue gives a new instant. Where
// padding does not pay (two smaller launches are faster than one padded launch) the launch takes
// the largest bucket that is full.
#pragma once

#include "sched/facts.h"
#include "sched/queues.h"
#include "sched/types.h"

namespace st::sched {

// hold_until: a launch of the queue by `runner` is due from this instant on.
TimeNs hold_until(const Facts& facts, const Queues& queues, const Queue& queue, LaneId runner);

// batch_limit: the most samples a launch of the queue by `runner` takes now.
std::uint32_t batch_limit(const Facts& facts, const Queues& queues, const Queue& queue,
                          LaneId runner);

}  // namespace st::sched
