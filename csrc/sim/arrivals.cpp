#include "sim/arrivals.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace st::sim {
namespace {

constexpr double kSecondNs = 1e9;

void check(const ArrivalSpec& spec) {
  if (spec.process == Process::kTrace) {
    if (!std::is_sorted(spec.times.begin(), spec.times.end())) {
      throw std::invalid_argument("arrivals.times: must ascend");
    }
    if (!spec.times.empty() && spec.times.front() < 0) {
      throw std::invalid_argument("arrivals.times: must not be negative");
    }
    return;
  }
  if (!std::isfinite(spec.rate) || spec.rate < 0) {
    throw std::invalid_argument("arrivals.rate: must be 0 or positive");
  }
  if (spec.process == Process::kGamma && !(std::isfinite(spec.cv) && spec.cv > 0)) {
    throw std::invalid_argument("arrivals.cv: must be positive");
  }
}

}  // namespace

Arrivals::Arrivals(ArrivalSpec spec, Random random) : spec_(std::move(spec)), random_(random) {
  check(spec_);
  mean_gap_ns_ = spec_.rate > 0 ? kSecondNs / spec_.rate : 0;
}

TimeNs Arrivals::next() {
  if (spec_.process == Process::kTrace) {
    return count_ < spec_.times.size() ? spec_.times[count_++] : kNever;
  }
  if (mean_gap_ns_ == 0) return kNever;
  if (spec_.process == Process::kConstant) {
    return std::llround(at_ns_ + static_cast<double>(count_++) * mean_gap_ns_);
  }
  at_ns_ += gap_ns();
  return std::llround(at_ns_);
}

TimeNs Arrivals::set_rate(double rate, TimeNs now) {
  if (spec_.process == Process::kTrace) {
    throw std::invalid_argument("set_rate: a trace has its times");
  }
  spec_.rate = rate;
  check(spec_);
  const auto now_ns = static_cast<double>(now);
  const bool constant = spec_.process == Process::kConstant;
  if (mean_gap_ns_ > 0) {
    const double passed = constant ? static_cast<double>(count_ - 1) * mean_gap_ns_ : 0;
    left_gaps_ = (at_ns_ + passed - now_ns) / mean_gap_ns_;
  }
  mean_gap_ns_ = rate > 0 ? kSecondNs / rate : 0;
  if (rate == 0) return kNever;
  if (left_gaps_ < 0) left_gaps_ = constant ? 0 : gap_ns() / mean_gap_ns_;
  at_ns_ = now_ns + left_gaps_ * mean_gap_ns_;
  count_ = 1;
  return std::llround(at_ns_);
}

double Arrivals::gap_ns() {
  if (spec_.process == Process::kPoisson) return mean_gap_ns_ * random_.exponential();
  const double shape = 1 / (spec_.cv * spec_.cv);
  return mean_gap_ns_ / shape * random_.gamma(shape);
}

}  // namespace st::sim
