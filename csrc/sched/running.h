// running.h: the launch a lane is busy with.
#pragma once

#include <algorithm>
#include <vector>

#include "sched/queues.h"
#include "sched/types.h"

namespace st::sched {

// A tenant's part of a launch.
struct Share {
  TenantId tenant = kNone;
  std::uint32_t samples = 0;
  double charged = 0;  // service charged at the start
};

struct Running {
  LaunchId launch = 0;  // 0 = the lane is free
  FamilyId family = kNone;
  LaneId owner = kNone;  // the lane whose queue it came from
  TenantId solo = kNone;
  std::uint32_t samples = 0;
  TimeNs started = 0;
  TimeNs base_ns = 0;
  TimeNs predicted_end = 0;
  std::vector<Share> shares;

  bool busy() const { return launch != 0; }
  TimeNs remaining_ns(TimeNs now) const {
    return busy() ? std::max<TimeNs>(predicted_end - now, 0) : 0;
  }
};

}  // namespace st::sched
