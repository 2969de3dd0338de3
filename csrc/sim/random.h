// random.h: the simulator's own random numbers: xoshiro256++ and the distributions it needs.
//
// Logarithm and exponential are written out, so a seed gives the same workload with any standard
// library; only +, -, *, / and square roots of IEEE doubles are used.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace st::sim {

// log_of: natural logarithm of a positive finite number, to 1e-15.
inline double log_of(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double sum = 0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * z + 1.0 / k;
  return 2 * s * sum + exponent * 0.69314718055994531;
}

// exp_of: e^x for |x| < 700, to 1e-14.
inline double exp_of(double x) {
  const double n = std::floor(x / 0.69314718055994531 + 0.5);
  const double r = x - n * 0.69314718055994531;
  double sum = 1;
  for (int k = 16; k >= 1; --k) sum = 1 + r / k * sum;
  return std::ldexp(sum, static_cast<int>(n));  // exact
}

class Random {
 public:
  // Random: `stream` gives independent generators of one seed.
  Random(std::uint64_t seed, std::uint64_t stream) {
    std::uint64_t mix = seed ^ (stream + 1) * 0xD1342543DE82EF95ull;
    for (std::uint64_t& word : state_) word = split_mix(mix);
  }

  // uniform: in (0, 1).
  double uniform() { return (static_cast<double>(next() >> 12) + 0.5) * 0x1p-52; }

  // one_of: each equally likely; there is at least one.
  double one_of(std::span<const double> values) {
    return values[static_cast<std::size_t>(uniform() * static_cast<double>(values.size()))];
  }

  double exponential() { return -log_of(uniform()); }

  // normal: Marsaglia's polar method.
  double normal() {
    for (;;) {
      const double u = 2 * uniform() - 1;
      const double v = 2 * uniform() - 1;
      const double s = u * u + v * v;
      if (s < 1 && s > 0) return u * std::sqrt(-2 * log_of(s) / s);
    }
  }

  // gamma: shape > 0, scale 1; Marsaglia and Tsang 2000.
  double gamma(double shape) {
    if (shape < 1) return gamma(shape + 1) * exp_of(log_of(uniform()) / shape);
    const double d = shape - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal();
      const double root = 1 + c * x;
      if (root <= 0) continue;
      const double v = root * root * root;
      if (log_of(uniform()) < x * x / 2 + d - d * v + d * log_of(v)) return d * v;
    }
  }

  // pick: a place of `sums`, ascending sums of weights, each as often as its own weight says.
  std::size_t pick(std::span<const double> sums) {
    const auto found = std::upper_bound(sums.begin(), sums.end(), uniform() * sums.back());
    return std::min(static_cast<std::size_t>(found - sums.begin()), sums.size() - 1);
  }

  // lognormal: mean 1 and the given coefficient of variation.
  double lognormal(double cv) {
    const double variance = log_of(1 + cv * cv);
    return exp_of(std::sqrt(variance) * normal() - variance / 2);
  }

 private:
  static std::uint64_t split_mix(std::uint64_t& state) {
    std::uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
  }

  std::uint64_t next() {
    const std::uint64_t out = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return out;
  }

  std::uint64_t state_[4];
};

}  // namespace st::sim
