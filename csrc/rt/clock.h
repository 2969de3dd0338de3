// clock.h: the executor's time axis, integer nanoseconds of the monotonic clock.
#pragma once

#include <ctime>

#include "sched/types.h"

namespace st::rt {

using sched::kNever;
using sched::TimeNs;

inline TimeNs now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return TimeNs{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// after: the instant `wait_ns` from now, saturating at kNever.
inline TimeNs after(TimeNs wait_ns) {
  const TimeNs now = now_ns();
  return wait_ns >= kNever - now ? kNever : now + wait_ns;
}

inline timespec to_timespec(TimeNs t) {
  return {static_cast<time_t>(t / 1'000'000'000), static_cast<long>(t % 1'000'000'000)};
}

}  // namespace st::rt
