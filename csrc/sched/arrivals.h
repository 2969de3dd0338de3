// arrivals.h: when a tenant's requests arrive.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "sched/random.h"
#include "sched/types.h"

namespace st::sched {

enum class Process : std::uint8_t { kPoisson, kConstant, kGamma, kTrace };

struct ArrivalSpec {
  Process process = Process::kPoisson;
  double rate = 0;            // requests per second; 0 = none. Not read by kTrace
  double cv = 1.0;            // kGamma: coefficient of variation of the gaps
  std::vector<TimeNs> times;  // kTrace: ascending
};

// One tenant's stream: next() gives the instant of each arrival in turn, kNever after the last.
class Arrivals {
 public:
  // throws std::invalid_argument for a rate, cv or trace that is none.
  Arrivals(ArrivalSpec spec, Random random);
  TimeNs next();

 private:
  double gap_ns();

  ArrivalSpec spec_;
  Random random_;
  double mean_gap_ns_ = 0;
  double at_ns_ = 0;
  std::size_t count_ = 0;
};

}  // namespace st::sched
