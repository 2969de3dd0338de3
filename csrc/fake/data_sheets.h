// data_sheets.h: the devices that the fake driver can be. Numbers are those of public data sheets
// unless a comment says that they were measured.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace st::fake {

using TimeNs = std::int64_t;
using SmSet = std::bitset<256>;

struct DataSheet {
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

// data_sheet: of "h200", "h100", "a100-80gb", "b200", "v100" or "vr200"; std::invalid_argument
// otherwise.
const DataSheet& data_sheet(std::string_view key);

}  // namespace st::fake
