// sim.h: the virtual-time driver of the scheduler.
//
// Feeds one Scheduler from a heap keyed (time, kind, id) until every request has been answered or
// dropped. At one instant: finishes by lane, then all arrivals together by tenant, then the wake.
// Same specification and seed, same timeline.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sched/arrivals.h"
#include "sched/recorder.h"
#include "sched/stats.h"
#include "sched/types.h"

namespace st::sched {

// How launches differ from their prediction: a factor of mean 1.
enum class Noise : std::uint8_t { kNone, kExponential, kLognormal, kRecorded };

// Launches that hold the tenant and start in [from, until) take `factor` times as long.
struct Slowdown {
  TimeNs from = 0;
  TimeNs until = kNever;
  double factor = 1.0;
};

struct SimTenant {
  TenantSpec spec;
  ArrivalSpec arrivals;
  std::uint64_t stream = ~0ull;  // which random arrivals are drawn; ~0 = those of its own number
  std::uint32_t samples = 1;
  std::vector<std::pair<std::uint32_t, double>> sizes;  // samples and weight; empty: `samples`
  TimeNs slo_ns = kNever;                               // objective: completed later counts as late
  bool drops = true;  // the objective is also the request's deadline
  std::vector<Slowdown> slowdowns;
};

struct SimLatency {
  FamilyId family = kNone;
  LaneId lane = kNone;
  std::uint32_t bucket = 0;
  TimeNs latency_ns = 0;
};

struct SimDuty {
  LaneId lane = kNone;
  std::vector<DutyTurn> turns;
};

// A launch of `family` that starts on `lane` while `other` runs `beside` takes `extra` times its
// latency longer; what several neighbours add is summed.
struct SimInterference {
  LaneId lane = kNone;
  FamilyId family = kNone;
  LaneId other = kNone;
  FamilyId beside = kNone;
  double extra = 0;
};

struct SimSpec {
  Policy policy;
  std::vector<LaneSpec> lanes;
  std::vector<FamilySpec> families;
  std::vector<SimLatency> latencies;
  std::vector<SimTenant> tenants;
  std::vector<SimDuty> duty;
  std::vector<SimInterference> interference;
  Noise noise = Noise::kNone;
  double noise_cv = 0;                // kLognormal
  std::vector<double> noise_factors;  // kRecorded: one is drawn a launch, as a part of their mean
  TimeNs horizon_ns = kNever;         // no arrivals from here on
  std::uint64_t requests = ~0ull;     // no arrivals after so many
  std::uint64_t seed = 0;
  bool timeline = false;
  std::size_t record = 0;  // bytes of recording kept; 0 = off
};

enum class EventKind : std::uint8_t { kArrive, kStart, kFinish, kDrop };

// One thing that happened. kArrive, kDrop: request, tenant. kStart: launch, lane, bucket and its
// requests, timeline.requests[first, first+count). kFinish: launch, lane.
struct Event {
  TimeNs time = 0;
  EventKind kind = EventKind::kArrive;
  DropReason reason = DropReason::kDeadline;
  std::uint64_t id = 0;  // request, or launch
  std::uint32_t at = 0;  // tenant, or lane
  std::uint32_t bucket = 0;
  std::uint64_t first = 0;
  std::uint32_t count = 0;
};

struct Timeline {
  std::vector<Event> events;
  std::vector<std::uint64_t> requests;
};

struct SimResult {
  Stats stats;
  TimeNs end_ns = 0;  // the last event
  Timeline timeline;
  std::string recording;  // sealed (tape.h); empty when off
};

// simulate: throws std::invalid_argument for a specification that is none, or without an end.
SimResult simulate(const SimSpec& spec);

}  // namespace st::sched
