// arrivals.h: when a tenant's requests arrive.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "sched/types.h"
#include "sim/random.h"

namespace st::sim {

using namespace sched;  // whose words the simulator speaks

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
  // set_rate: of any process but kTrace, from `now` on. What is left until the instant that next()
  // gave last is scaled by old rate over new, which is exact: the draws are those of rate 1, seen
  // through the integrated rate. Gives that instant anew.
  TimeNs set_rate(double rate, TimeNs now);

 private:
  double gap_ns();

  ArrivalSpec spec_;
  Random random_;
  double mean_gap_ns_ = 0;
  double at_ns_ = 0;       // the last instant given; kConstant: that of number 0
  double left_gaps_ = -1;  // without a rate: mean gaps until the next, negative = none drawn
  std::size_t count_ = 0;  // given so far; kConstant: since at_ns_
};

}  // namespace st::sim
