#include "cuda/topology.h"

#include <numeric>

namespace st::cuda {
namespace {

// The smallest group on drivers that do not say (before CUDA 13.0), from cuda.h's guideline.
unsigned smallest_group(int major) {
  if (major >= 9) return 8;
  return major == 8 ? 4 : 2;
}

Units range(std::uint32_t from, std::uint32_t to) {
  Units units(to - from);
  std::iota(units.begin(), units.end(), from);
  return units;
}

}  // namespace

unsigned Topology::total() const { return std::accumulate(sms.begin(), sms.end(), 0U); }

Topology split(const Device& device, unsigned least) {
  CUdevResource all{};
  ST_ON(device, cuDeviceGetDevResource, device.handle(), &all, kResourceSm);
  if (least == 0) least = all.sm.minSmPartitionSize;
  if (least == 0) least = smallest_group(device.facts().major);
  unsigned count = 0;
  ST_ON(device, cuDevSmResourceSplitByCount, nullptr, &count, &all, nullptr, 0, least);
  Topology topology;
  topology.units.resize(count);
  CUdevResource rest{};
  ST_ON(device, cuDevSmResourceSplitByCount, topology.units.data(), &count, &all, &rest, 0, least);
  topology.units.resize(count);
  if (rest.type == kResourceSm && rest.sm.smCount > 0) {
    topology.remainder = true;
    topology.units.push_back(rest);
  }
  for (const CUdevResource& unit : topology.units) topology.sms.push_back(unit.sm.smCount);
  return topology;
}

std::vector<Units> ladder(std::uint32_t units) {
  std::vector<Units> rungs;
  for (std::uint32_t k = 1; k < units; ++k) {
    rungs.push_back(range(0, k));
    rungs.push_back(range(k, units));
  }
  rungs.push_back(range(0, units));
  return rungs;
}

}  // namespace st::cuda
