// histogram.h: a fixed-size log-linear histogram of nanoseconds.
//
// 64 buckets an octave: a percentile is off by at most 1/128 of its value. Values above 2^42 ns
// (73 minutes) share the last bucket; count, sum, min and max are exact.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "sched/types.h"

namespace st::sched {

class Histogram {
 public:
  void record(TimeNs value) {
    const TimeNs positive = std::max<TimeNs>(value, 0);
    ++buckets_[index(static_cast<std::uint64_t>(positive))];
    min_ = count_ == 0 ? positive : std::min(min_, positive);
    max_ = std::max(max_, positive);
    sum_ += static_cast<double>(positive);
    ++count_;
  }

  std::uint64_t count() const { return count_; }
  TimeNs min_ns() const { return min_; }
  TimeNs max_ns() const { return max_; }
  double mean_ns() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

  // percentile: the smallest value that `fraction` (0..1) of the values do not exceed.
  TimeNs percentile_ns(double fraction) const {
    const auto rank = static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(count_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen >= std::max<std::uint64_t>(rank, 1)) return std::clamp(middle(i), min_, max_);
    }
    return max_;
  }

  void merge(const Histogram& other) {
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    if (other.count_ > 0) min_ = count_ == 0 ? other.min_ : std::min(min_, other.min_);
    max_ = std::max(max_, other.max_);
    sum_ += other.sum_;
    count_ += other.count_;
  }

 private:
  static constexpr unsigned kBits = 6;  // buckets an octave, as a power of two
  static constexpr unsigned kOctaves = 42 - kBits;
  static constexpr std::size_t kSize = (kOctaves + 1) << kBits;

  static std::size_t index(std::uint64_t value) {
    if (value < (1u << kBits)) return static_cast<std::size_t>(value);
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
    const std::size_t place = (static_cast<std::size_t>(shift) << kBits) + (value >> shift);
    return std::min(place, kSize - 1);
  }

  static TimeNs middle(std::size_t place) {
    if (place < (2u << kBits)) return static_cast<TimeNs>(place);
    const unsigned shift = static_cast<unsigned>(place >> kBits) - 1;
    const std::uint64_t low = ((place & ((1u << kBits) - 1)) + (1u << kBits)) << shift;
    return static_cast<TimeNs>(low + (1ull << shift) / 2);
  }

  std::array<std::uint64_t, kSize> buckets_{};
  std::uint64_t count_ = 0;
  TimeNs min_ = 0;
  TimeNs max_ = 0;
  double sum_ = 0;
};

}  // namespace st::sched
