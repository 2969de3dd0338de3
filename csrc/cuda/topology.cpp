#include "cuda/topology.h"

#include <numeric>
#include <stdexcept>
#include <string>

namespace st::cuda {
namespace {

using Parameters = CU_DEV_SM_RESOURCE_GROUP_PARAMS;
constexpr unsigned kLeastPiece = 2;  // SMs that no split parts

// The smallest group on drivers that do not say (before CUDA 13.0), from cuda.h's guideline.
unsigned smallest_group(const Device& device, const CUdevResource& all) {
  if (all.sm.minSmPartitionSize != 0) return all.sm.minSmPartitionSize;
  if (device.facts().major >= 9) return 8;
  return device.facts().major == 8 ? 4 : 2;
}

Units range(std::uint32_t from, std::uint32_t to) {
  Units units(to - from);
  std::iota(units.begin(), units.end(), from);
  return units;
}

unsigned checked(unsigned unit_sms, const CUdevResource& all) {
  if (unit_sms % 2 == 0 && unit_sms <= all.sm.smCount) return unit_sms;
  throw std::invalid_argument("unit_sms: " + std::to_string(unit_sms) +
                              " is not an even number of SMs up to the device's " +
                              std::to_string(all.sm.smCount));
}

std::vector<int> domains_of(const Device& device) {
  int count = 1;  // what a driver has that does not know the attribute
  device.driver().cuDeviceGetAttribute(&count, kAttributeLocalityDomains, device.handle());
  if (count > 1 && device.driver().has(Entry::cuDevSmResourceSplit)) {
    std::vector<int> domains(static_cast<std::size_t>(count));
    std::iota(domains.begin(), domains.end(), 0);
    return domains;
  }
  throw std::invalid_argument(
      count > 1 ? "domains: the driver has no cuDevSmResourceSplit; update it to CUDA 13.1 or newer"
                : "domains: the device has one locality domain; open it without them");
}

// Groups of one size, as many as there are: the way of every driver with green contexts.
std::vector<CUdevResource> by_count(const Device& device, const CUdevResource& all, unsigned sms,
                                    unsigned flags, CUdevResource& rest) {
  unsigned count = 0;
  ST_ON(device, cuDevSmResourceSplitByCount, nullptr, &count, &all, nullptr, flags, sms);
  std::vector<CUdevResource> groups(count);
  ST_ON(device, cuDevSmResourceSplitByCount, groups.data(), &count, &all, &rest, flags, sms);
  groups.resize(count);
  return groups;
}

Parameters group(unsigned sms, unsigned coscheduled, int domain) {
  Parameters wanted{};
  wanted.smCount = sms;
  wanted.coscheduledSmCount = coscheduled;
  if (domain < 0) return wanted;
  wanted.flags = kGroupLocalityDomain;
  wanted.localityDomainId = static_cast<unsigned>(domain);
  return wanted;
}

// Groups of `sms` in each of these domains: how many fit is asked first (a count of 0). Pieces of
// two SMs leave none of them over; 0 is the device's own size.
std::vector<CUdevResource> structured(const Device& device, const CUdevResource& all, unsigned sms,
                                      std::vector<int>& domains, unsigned coscheduled,
                                      CUdevResource& rest) {
  std::vector<Parameters> wanted;
  for (const int domain : domains) wanted.push_back(group(0, coscheduled, domain));
  ST_ON(device, cuDevSmResourceSplit, nullptr, static_cast<unsigned>(wanted.size()), &all, nullptr,
        0, wanted.data());
  std::vector<int> of_groups;
  for (std::size_t i = 0; i < domains.size(); ++i) {
    of_groups.insert(of_groups.end(), wanted[i].smCount / sms, domains[i]);
  }
  domains = std::move(of_groups);
  wanted.clear();
  for (const int domain : domains) wanted.push_back(group(sms, coscheduled, domain));
  std::vector<CUdevResource> groups(wanted.size());
  ST_ON(device, cuDevSmResourceSplit, groups.data(), static_cast<unsigned>(groups.size()), &all,
        &rest, 0, wanted.data());
  return groups;
}

}  // namespace

unsigned Topology::total() const { return std::accumulate(sms.begin(), sms.end(), 0U); }

Topology split(const Device& device, const Division& division) {
  CUdevResource all{};
  ST_ON(device, cuDeviceGetDevResource, device.handle(), &all, kResourceSm);
  const unsigned smallest = smallest_group(device, all);
  const unsigned sms = checked(division.unit_sms != 0 ? division.unit_sms : smallest, all);
  Topology topology;
  topology.coscheduled = sms >= smallest;
  CUdevResource rest{};
  if (division.domains) {
    topology.domains = domains_of(device);
    const unsigned pieces = topology.coscheduled ? 0 : kLeastPiece;
    topology.units = structured(device, all, sms, topology.domains, pieces, rest);
  } else if (!topology.coscheduled && device.driver().has(Entry::cuDevSmResourceSplit)) {
    topology.domains = {-1};
    topology.units = structured(device, all, sms, topology.domains, kLeastPiece, rest);
  } else {
    const unsigned flags = topology.coscheduled ? 0 : kIgnoreCoscheduling;
    topology.units = by_count(device, all, sms, flags, rest);
    topology.domains.assign(topology.units.size(), -1);
  }
  if (rest.type == kResourceSm && rest.sm.smCount > 0) {
    topology.remainder = true;
    topology.units.push_back(rest);
    topology.domains.push_back(-1);
  }
  for (const CUdevResource& unit : topology.units) topology.sms.push_back(unit.sm.smCount);
  return topology;
}

std::vector<Units> ladder(const Topology& topology) {
  std::vector<Units> rungs;
  const auto units = static_cast<std::uint32_t>(topology.sms.size());
  for (std::uint32_t first = 0, end = 0; first < units; first = end) {
    end = first;
    while (end < units && topology.domains[end] == topology.domains[first]) ++end;
    for (std::uint32_t k = first + 1; k < end; ++k) {
      rungs.push_back(range(first, k));
      rungs.push_back(range(k, end));
    }
    rungs.push_back(range(first, end));
  }
  return rungs;
}

}  // namespace st::cuda
