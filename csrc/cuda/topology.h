// topology.h: how a device's SMs divide: one split into groups, and the ladder of partitions.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/device.h"

namespace st::cuda {

using Units = std::vector<std::uint32_t>;  // ids of groups, ascending

// How a device is to be split.
struct Division {
  unsigned unit_sms = 0;  // SMs of a group; 0 takes the smallest that keeps a cluster's together
  bool domains = false;   // every group within one locality domain (of a device that has several)
};

// The one split of a device. Every unit but the remainder, which is the last where there is one, is
// a group. The driver puts resources of one split into one partition, so all units may be combined,
// but those of different domains.
struct Topology {
  std::vector<CUdevResource> units;
  std::vector<unsigned> sms;  // of each unit
  std::vector<int> domains;   // of each unit; -1: not bound to one
  bool remainder = false;     // whether the last unit is the remainder
  bool coscheduled = true;    // whether a group holds the clusters that its size allows
  unsigned total() const;
};

// split: throws DriverError, or std::invalid_argument where the driver cannot divide like that.
// Groups that are smaller than the driver's smallest lie anywhere: large clusters do not fit.
Topology split(const Device& device, const Division& division = {});

// ladder: for every k the first k units and all the others, and the whole device; so that any
// proportion of two is there. Where units belong to domains, the same within each of them.
std::vector<Units> ladder(const Topology& topology);

}  // namespace st::cuda
