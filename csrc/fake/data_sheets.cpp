#include "fake/data_sheets.h"

#include <array>
#include <stdexcept>

namespace st::fake {
namespace {

constexpr std::size_t kMiB = 1 << 20;

// Partition sizes: cuda.h's guideline per architecture (7.x: 2/2, 8.x: 4/2, 9.0 and later: 8/8).
// The 15 groups of 8 on 132 SMs were measured on one H100 SXM5; which units a die has fused off
// differs, so another part may have 16. Bandwidth of the H200 is that of a measured copy, that of
// the others 90 % of the data sheet; one SM draws what lets about 36 % of them saturate it.
constexpr std::array<DataSheet, 6> kDevices = {{
    {.key = "h200",
     .name = "NVIDIA H200",
     .major = 9,
     .minor = 0,
     .sms = 132,
     .minimum = 8,
     .alignment = 8,
     .whole_groups = 15,
     .clock_khz = 1'980'000,
     .memory_bytes = 143'771 * kMiB,
     .l2_bytes = 60 * kMiB,
     .flops_sm = 510,
     .bandwidth = 4300,
     .bandwidth_sm = 90,
     .link = 55},
    {.key = "h100",
     .name = "NVIDIA H100 80GB HBM3",
     .major = 9,
     .minor = 0,
     .sms = 132,
     .minimum = 8,
     .alignment = 8,
     .whole_groups = 15,
     .clock_khz = 1'980'000,
     .memory_bytes = 81'559 * kMiB,
     .l2_bytes = 50 * kMiB,
     .flops_sm = 510,
     .bandwidth = 3000,
     .bandwidth_sm = 64,
     .link = 55},
    {.key = "a100-80gb",
     .name = "NVIDIA A100-SXM4-80GB",
     .major = 8,
     .minor = 0,
     .sms = 108,
     .minimum = 4,
     .alignment = 2,
     .whole_groups = 27,
     .clock_khz = 1'410'000,
     .memory_bytes = 81'920 * kMiB,
     .l2_bytes = 40 * kMiB,
     .flops_sm = 180,
     .bandwidth = 1830,
     .bandwidth_sm = 47,
     .link = 25},
    {.key = "b200",
     .name = "NVIDIA B200",
     .major = 10,
     .minor = 0,
     .sms = 148,
     .minimum = 8,
     .alignment = 8,
     .whole_groups = 18,
     .clock_khz = 1'965'000,
     .memory_bytes = 183'359 * kMiB,
     .l2_bytes = 126 * kMiB,
     .flops_sm = 503,
     .bandwidth = 7200,
     .bandwidth_sm = 136,
     .link = 55},
    {.key = "v100",
     .name = "Tesla V100-SXM2-32GB",
     .major = 7,
     .minor = 0,
     .sms = 80,
     .minimum = 2,
     .alignment = 2,
     .whole_groups = 40,
     .clock_khz = 1'530'000,
     .memory_bytes = 32'510 * kMiB,
     .l2_bytes = 6 * kMiB,
     .flops_sm = 196,
     .bandwidth = 810,
     .bandwidth_sm = 28,
     .link = 12},
    // Announced, not seen: a Rubin of two dies. Compute capability 10.7 and the locality domains
    // are cuda.h's of CUDA 13.5; SMs, memory and its bandwidth (90 % of it here) are announcements;
    // groups, SMs outside any domain, clock, L2 and operations are guesses beside a B200's.
    {.key = "vr200",
     .name = "NVIDIA VR200",
     .major = 10,
     .minor = 7,
     .sms = 224,
     .minimum = 8,
     .alignment = 8,
     .whole_groups = 26,
     .clock_khz = 1'965'000,
     .memory_bytes = 294'912 * kMiB,
     .l2_bytes = 252 * kMiB,
     .flops_sm = 503,
     .bandwidth = 19800,
     .bandwidth_sm = 245,
     .link = 110,
     .domains = 2,
     .driver_version = 13050},
}};

}  // namespace

const DataSheet& data_sheet(std::string_view key) {
  std::string known;
  for (const DataSheet& sheet : kDevices) {
    if (sheet.key == key) return sheet;
    known += (known.empty() ? "" : ", ") + std::string(sheet.key);
  }
  throw std::invalid_argument("device: no fake '" + std::string(key) + "'; use one of " + known);
}

}  // namespace st::fake
