// topology.h: how a device's SMs divide: one split into groups, and the ladder of partitions.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/device.h"

namespace st::cuda {

using Units = std::vector<std::uint32_t>;  // ids of groups, ascending

// The one split of a device (cuda.md §0.1.2). Unit g < groups.size() is a group; unit
// groups.size() is the remainder, where there is one. All units may be combined, because they come
// from the same split.
struct Topology {
  std::vector<CUdevResource> units;
  std::vector<unsigned> sms;  // of each unit
  bool remainder = false;     // whether the last unit is the remainder
  unsigned total() const;
};

// split: throws DriverError. `least`: SMs of a group at least; 0 takes the smallest that keeps SMs
// of one cluster together.
Topology split(const Device& device, unsigned least = 0);

// ladder: for every k the first k units and all the others, and the whole device; so that any
// proportion of two can be chosen without making anything.
std::vector<Units> ladder(std::uint32_t units);

}  // namespace st::cuda
