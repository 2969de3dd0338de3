// presets.h: the policies with a name.
#pragma once

#include <array>
#include <string_view>

#include "sched/names.h"
#include "sched/types.h"

namespace st::sched {

struct Preset {
  std::string_view name;
  Route route;
  Order order;
  BatchRule batch;
  bool lend = false;
  bool shed = false;
  double straggler_multiple = 0;
};

inline constexpr std::array<Preset, 7> kPresets = {{
    {"time-only", Route::kPinned, Order::kFifo, BatchRule::kOne},
    {"space-only", Route::kPinned, Order::kFifo, BatchRule::kOne},
    {"space-time", Route::kLeastWait, Order::kEdf, BatchRule::kSlack, true, true, 2.0},
    {"elsa", Route::kElsa, Order::kFifo, BatchRule::kOne},
    {"gpulet", Route::kWeighted, Order::kDuty, BatchRule::kGreedy},
    {"parvagpu", Route::kWeighted, Order::kFifo, BatchRule::kGreedy},
    {"mps-default", Route::kPinned, Order::kFifo, BatchRule::kOne},
}};

// preset: throws std::invalid_argument that lists the names.
inline Policy preset(std::string_view name) {
  std::array<std::string_view, kPresets.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kPresets[i].name;
  const Preset& found = kPresets[parse<std::size_t>(names, name, "policy")];
  Policy policy;
  policy.route = found.route;
  policy.order = found.order;
  policy.batch = found.batch;
  policy.lend = found.lend;
  policy.shed = found.shed;
  policy.straggler.multiple = found.straggler_multiple;
  return policy;
}

}  // namespace st::sched
