// replay.h: the same events into a fresh scheduler; does it decide the same?
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sched/types.h"

namespace st::tape {

using namespace sched;  // whose calls and decisions a recording holds

// The first event that was answered otherwise than recorded.
struct Difference {
  TimeNs at_ns = 0;         // since the first event
  std::uint64_t event = 0;  // its number, from 1
  std::string recorded;     // the decision there, as words
  std::string replayed;
};

struct Replay {
  std::uint64_t events = 0;
  std::uint64_t requests = 0;
  std::uint64_t starts = 0;
  std::uint64_t drops = 0;
  TimeNs span_ns = 0;    // from the first event to the last
  bool complete = true;  // false: the recording stops before the run did
  std::optional<Difference> difference;
};

// replay: up to the first difference. Throws std::invalid_argument `recording: byte N: ...` for
// bytes that are no recording, or that no driver could have recorded.
Replay replay(std::string_view recording);

}  // namespace st::tape
