// facts.h: what the fake driver knows of the devices it can be. Numbers are those of public data
// sheets unless a comment says that they were measured.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace st::fake {

using TimeNs = std::int64_t;
using SmSet = std::bitset<256>;

struct Facts {
  std::string_view key;   // "h200"
  std::string_view name;  // as cuDeviceGetName gives it
  int major, minor;
  unsigned sms;
  unsigned minimum;       // SMs of the smallest co-scheduled partition
  unsigned alignment;     // and what its size is a multiple of
  unsigned whole_groups;  // how many of the smallest there are; the other SMs are a remainder
  int clock_khz;
  std::size_t memory_bytes, l2_bytes;
  double flops_sm;             // fp32 operations per ns of one SM
  double bandwidth;            // bytes per ns of the device's memory, as a copy measures it
  double bandwidth_sm;         // bytes per ns that one SM can draw: more than its share
  double link;                 // bytes per ns between host and device
  unsigned domains = 1;        // locality domains; each has an equal part of the whole groups
  int driver_version = 13000;  // that a machine with it has
};

// find: the facts of "h200", "h100", "a100-80gb", "b200", "v100" or "vr200"; std::invalid_argument
// otherwise.
const Facts& find(std::string_view key);

struct Options {
  std::string device = "h200";
  // 0: as the device needs. < 12040: no green contexts; < 12050: none with streams; >= 13010:
  // splits by parameters, work queues and locality domains.
  int driver_version = 0;
  std::size_t memory_bytes = 0;   // 0: as the device has
  unsigned whole_groups = 0;      // 0: as the device has; dies differ in which units are fused off
  unsigned smallest_context = 0;  // green contexts with fewer SMs are refused
  bool remainder_merges = true;   // whether a remainder goes with groups of its split
  std::size_t address_bytes = 0;  // that can be reserved at once; 0: what the machine gives
  bool interference = true;       // partitions share the bandwidth of the device's memory
  TimeNs call_ns = 100;           // host time of a call
  TimeNs poll_ns = 1000;          // host time of a query that finds the work unfinished
  TimeNs launch_ns = 2000;        // from the start of a kernel to its first instruction
  TimeNs node_ns = 1000;          // the same inside a graph, for every kind of node
  TimeNs copy_ns = 1500;          // before the first byte of a copy or a memset
};

}  // namespace st::fake
