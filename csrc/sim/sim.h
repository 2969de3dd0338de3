// sim.h: the virtual-time driver of the scheduler.
//
// Feeds one Scheduler from heaps keyed (time, id) until every request has been answered or dropped.
// At one instant: finishes by lane, then all arrivals together by tenant, then the wake.
// Same specification, seed and changes, same timeline.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sched/stats.h"
#include "sched/types.h"
#include "sim/arrivals.h"
#include "tape/recorder.h"

namespace st::sim {

using tape::Recorder;

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
struct SimEvent {
  TimeNs time = 0;
  EventKind kind = EventKind::kArrive;
  DropReason reason = DropReason::kDeadline;
  std::uint64_t id = 0;  // request, or launch
  std::uint32_t at = 0;  // tenant, or lane
  std::uint32_t bucket = 0;
  std::uint64_t first = 0;
  std::uint32_t count = 0;
};

struct SimTimeline {
  std::vector<SimEvent> events;
  std::vector<std::uint64_t> requests;
};

struct SimResult {
  Stats stats;
  TimeNs end_ns = 0;  // the last event
  SimTimeline timeline;
  std::string recording;  // sealed (tape/tape.h); empty when off
};

// A simulation that stops where it is told, and can be changed there: what a controller does to a
// running executor. A change happens at now(), after all that happened at that instant.
//
// Every function throws std::invalid_argument for what is none of its values.
class Simulation {
 public:
  explicit Simulation(SimSpec spec);
  ~Simulation();
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  // run_until: everything up to and with the instant `time`; kNever = to the end. False at the end:
  // every request has been answered or dropped, and none is to come at the present rates.
  bool run_until(TimeNs time);
  TimeNs now() const;  // the instant it was run to, or the last event's after the end
  const Stats& stats() const;
  const Recorder& scheduler() const;
  SimResult result() const&;  // so far
  SimResult result() &&;

  LaneId add_lane(const LaneSpec& spec);
  void close_lane(LaneId lane);
  void set_latency(const SimLatency& latency);
  void set_batch(FamilyId family, LaneId lane, std::uint32_t samples);
  void set_duty(LaneId lane, std::vector<DutyTurn> turns);
  void set_routes(TenantId tenant, Routes routes, bool move);
  void set_rate(TenantId tenant, double rate);  // requests a second, from now on

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// simulate: a Simulation to its end. Throws std::invalid_argument also for one without an end.
SimResult simulate(SimSpec spec);

}  // namespace st::sim
