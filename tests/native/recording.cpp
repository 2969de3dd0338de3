// recording.cpp: recorded runs replay to the same decisions; the reader takes any bytes.
#undef NDEBUG
#include <array>
#include <cassert>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "sched/presets.h"
#include "sim/random.h"
#include "sim/sim.h"
#include "tape/replay.h"
#include "tape/tape.h"

namespace {

using namespace st::sched;
using namespace st::sim;
using namespace st::tape;

constexpr TimeNs kMs = 1'000'000;

std::string recorded(const Preset& preset_, std::uint64_t requests) {
  SimSpec spec;
  spec.policy = preset(preset_.name);
  spec.lanes = {{1, true, kNone}, {2, true, kNone}};
  spec.families = {{{1, 2, 4}}, {{1, 8}}};
  for (LaneId lane = 0; lane < 2; ++lane) {
    for (const std::uint32_t bucket : {1u, 2u, 4u}) {
      spec.latencies.push_back({0, lane, bucket, (1 + bucket) * kMs});
    }
    for (const std::uint32_t bucket : {1u, 8u}) {
      spec.latencies.push_back({1, lane, bucket, (2 + bucket) * kMs});
    }
  }
  for (TenantId id = 0; id < 4; ++id) {
    SimTenant tenant;
    tenant.spec = {id % 2, 0, 1.0 + id, 4, id % 2, {1, 2}};
    tenant.arrivals = {Process::kPoisson, 250, 1, {}};
    tenant.slo_ns = 20 * kMs;
    spec.tenants.push_back(std::move(tenant));
  }
  if (spec.policy.order == Order::kDuty) spec.duty.push_back({0, {{0, 2}, {2, 1}}});
  spec.noise = Noise::kExponential;
  spec.requests = requests;
  spec.record = 1 << 24;
  return simulate(spec).recording;
}

void every_preset_replays() {
  for (const Preset& preset : kPresets) {
    const Replay again = replay(recorded(preset, 2'000));
    assert(!again.difference && again.complete);
    assert(again.requests == 2'000 && again.starts > 0 && again.drops > 0);
  }
}

// Whatever bytes there are: judged, or refused with the byte's number; never anything else.
void the_reader_takes_any_bytes() {
  Random random(7, 0);
  const auto draw = [&](std::size_t below) {
    return static_cast<std::size_t>(random.uniform() * static_cast<double>(below));
  };
  std::array<std::uint64_t, 3> ends{};  // same, different, refused
  for (const Preset& preset : kPresets) {
    std::string body = recorded(preset, 60);
    body.resize(body.size() - 8);
    for (int round = 0; round < 1'500; ++round) {
      std::string altered = body;
      for (std::size_t edits = 1 + draw(3); edits > 0; --edits) {
        const std::size_t place = kRecordingHead.size() + draw(altered.size() - 40);
        if (draw(4) == 0) {
          altered.erase(place, draw(4));
        } else {
          altered[place] = static_cast<char>(draw(2) ? draw(256) : draw(8) * 36);
        }
      }
      seal(altered);
      try {
        ++ends[replay(altered).difference ? 1 : 0];
      } catch (const std::invalid_argument& error) {
        assert(std::string(error.what()).starts_with("recording: byte "));
        ++ends[2];
      }
    }
  }
  assert(ends[0] > 0 && ends[1] > 0 && ends[2] > 0);
  std::printf("recordings: %llu same, %llu different, %llu refused\n",
              static_cast<unsigned long long>(ends[0]), static_cast<unsigned long long>(ends[1]),
              static_cast<unsigned long long>(ends[2]));
}

}  // namespace

int main() {
  every_preset_replays();
  the_reader_takes_any_bytes();
  std::puts("recording: ok");
}
