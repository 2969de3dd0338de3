// roundtrip.h: how long a request takes from submit to the moment its caller knows the end.
#pragma once

#include <vector>

#include "rt/executor.h"

namespace st::rt {

// roundtrip: `count` requests of this tenant, one after the other, each awaited; sorted times.
// Throws std::runtime_error when one is refused.
std::vector<TimeNs> roundtrip(Executor& executor, TenantId tenant, std::uint32_t count);

}  // namespace st::rt
