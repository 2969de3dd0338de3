#include "sched/sim.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <stdexcept>
#include <utility>

#include "sched/indexed_heap.h"

namespace st::sched {
namespace {

struct Source {
  std::uint32_t place = kNone;
};

struct Live {  // a request between its arrival and its end
  std::uint64_t number = 0;
  TenantId tenant = kNone;
  TimeNs arrival = 0;
  TimeNs objective = kNever;
};

struct LaneState {
  LaunchId launch = 0;  // 0 = idle
  FamilyId family = kNone;
  TimeNs started = 0;
  std::uint32_t samples = 0;
  std::uint32_t tenants = 0;
  std::vector<RequestId> requests;
};

// How many samples each request of a tenant holds.
struct Sizes {
  std::vector<std::uint32_t> samples;
  std::vector<double> sums;  // of the weights
  Random random;
};

class Simulation {
 public:
  explicit Simulation(const SimSpec& spec);
  SimResult run();

 private:
  void set_up();
  void add_latency(const SimLatency& latency);
  void add_interference(const SimInterference& pair);
  void add_sizes(const SimTenant& tenant, std::uint64_t stream);
  void check_end() const;
  void check_factors();
  std::uint32_t source_of(TenantId tenant) const { return lanes() + tenant; }
  std::uint32_t lanes() const { return static_cast<std::uint32_t>(spec_.lanes.size()); }

  void draw_arrival(TenantId tenant, bool scheduled);
  void arrivals(TimeNs now);
  void arrive(TenantId tenant, TimeNs now);
  void finish(LaneId lane, TimeNs now);
  void act(TimeNs now);
  void start(const Start& start, TimeNs now);
  TimeNs service_ns(const Start& start, TimeNs now);
  double slowdown(const Start& start, TimeNs now) const;
  double interference(const Start& start) const;
  std::uint32_t count_tenants(const Start& start);
  void drop(const Drop& drop, TimeNs now);
  RequestId slot();

  const SimSpec& spec_;
  Recorder scheduler_;
  SimResult result_;
  Random noise_;
  double mean_factor_ = 1;
  std::vector<Arrivals> arrivals_;                         // by tenant
  std::vector<Sizes> sizes_;                               // by tenant
  std::vector<std::vector<std::vector<TimeNs>>> latency_;  // by family, lane, bucket's place
  std::vector<LaneState> lane_states_;
  std::vector<std::vector<SimInterference>> neighbours_;  // by lane
  std::vector<Source> sources_;                           // lanes, then tenants
  IndexedHeap<Source, &Source::place, TimeNs> next_;
  std::vector<Live> live_;
  std::vector<RequestId> free_;
  std::vector<std::uint64_t> seen_;  // by tenant: the last launch it was in
  std::vector<Request> burst_;
  Actions actions_;
  std::uint64_t offered_ = 0;
};

Simulation::Simulation(const SimSpec& spec)
    : spec_(spec), scheduler_(spec.policy, spec.record), noise_(spec.seed, ~0ull) {
  check_end();
  set_up();
}

void Simulation::check_end() const {
  if (spec_.horizon_ns != kNever || spec_.requests != ~0ull) return;
  for (const SimTenant& tenant : spec_.tenants) {
    if (tenant.arrivals.process != Process::kTrace) {
      throw std::invalid_argument("simulate: name a horizon_ns or a number of requests");
    }
  }
}

void Simulation::set_up() {
  if (spec_.noise == Noise::kLognormal && !(std::isfinite(spec_.noise_cv) && spec_.noise_cv > 0)) {
    throw std::invalid_argument("noise_cv: must be positive");
  }
  check_factors();
  for (const LaneSpec& lane : spec_.lanes) {
    scheduler_.add_lane(lane);
    result_.stats.add_lane();
  }
  for (const FamilySpec& family : spec_.families) {
    scheduler_.add_family(family);
    latency_.emplace_back(lanes(), std::vector<TimeNs>(family.buckets.size(), 0));
  }
  for (const SimLatency& latency : spec_.latencies) add_latency(latency);
  lane_states_.resize(lanes());
  neighbours_.resize(lanes());
  for (const SimInterference& pair : spec_.interference) add_interference(pair);
  sources_.resize(lanes() + spec_.tenants.size());
  seen_.resize(spec_.tenants.size());
  for (TenantId id = 0; id < spec_.tenants.size(); ++id) {
    const SimTenant& tenant = spec_.tenants[id];
    if (tenant.samples == 0) throw std::invalid_argument("samples: must be at least 1");
    if (tenant.slo_ns <= 0) throw std::invalid_argument("slo_ns: must be positive");
    scheduler_.add_tenant(tenant.spec);
    result_.stats.add_tenant();
    const std::uint64_t stream = tenant.stream == ~0ull ? id : tenant.stream;
    arrivals_.emplace_back(tenant.arrivals, Random(spec_.seed, stream));
    add_sizes(tenant, stream);
    draw_arrival(id, false);
  }
  for (const SimDuty& duty : spec_.duty) scheduler_.set_duty(duty.lane, duty.turns);
}

void Simulation::check_factors() {
  if (spec_.noise != Noise::kRecorded) return;
  const std::vector<double>& factors = spec_.noise_factors;
  const auto sound = [](double factor) { return std::isfinite(factor) && factor > 0; };
  if (factors.empty() || !std::all_of(factors.begin(), factors.end(), sound)) {
    throw std::invalid_argument("noise_factors: must be positive, at least one");
  }
  mean_factor_ = std::accumulate(factors.begin(), factors.end(), 0.0) / factors.size();
}

void Simulation::add_latency(const SimLatency& latency) {
  scheduler_.set_latency(latency.family, latency.lane, latency.bucket, latency.latency_ns);
  const std::vector<std::uint32_t>& buckets = spec_.families[latency.family].buckets;
  const auto place = std::find(buckets.begin(), buckets.end(), latency.bucket) - buckets.begin();
  latency_[latency.family][latency.lane][static_cast<std::size_t>(place)] = latency.latency_ns;
}

void Simulation::add_interference(const SimInterference& pair) {
  if (pair.lane >= lanes() || pair.other >= lanes() || pair.lane == pair.other) {
    throw std::invalid_argument("interference.lane: must name two different lanes");
  }
  if (!std::isfinite(pair.extra) || pair.extra < 0) {
    throw std::invalid_argument("interference.extra: must be 0 or positive");
  }
  neighbours_[pair.lane].push_back(pair);
}

// Sizes are a stream of their own: when requests arrive does not depend on how large they are.
void Simulation::add_sizes(const SimTenant& tenant, std::uint64_t stream) {
  Sizes& sizes = sizes_.emplace_back(Sizes{{}, {}, Random(spec_.seed, ~stream ^ 1ull << 63)});
  for (const auto& [samples, weight] : tenant.sizes) {
    if (samples == 0 || !std::isfinite(weight) || weight <= 0) {
      throw std::invalid_argument("sizes: must map samples from 1 to positive weights");
    }
    sizes.samples.push_back(samples);
    sizes.sums.push_back(weight + (sizes.sums.empty() ? 0 : sizes.sums.back()));
  }
}

SimResult Simulation::run() {
  for (;;) {
    const TimeNs event = next_.empty() ? kNever : next_.top().key;
    const TimeNs wake = scheduler_.next_wake();
    const TimeNs now = std::min(event, wake);
    if (now == kNever) break;
    result_.end_ns = now;
    actions_.clear();
    if (wake < event) {
      scheduler_.wake(now, actions_);
    } else if (next_.top().id < lanes()) {
      finish(next_.top().id, now);
    } else {
      arrivals(now);
    }
    act(now);
  }
  result_.recording = scheduler_.recording();
  if (!result_.recording.empty()) seal(result_.recording);
  return std::move(result_);
}

void Simulation::draw_arrival(TenantId tenant, bool scheduled) {
  const std::uint32_t source = source_of(tenant);
  const TimeNs at = offered_ < spec_.requests ? arrivals_[tenant].next() : kNever;
  const bool none = at == kNever || at >= spec_.horizon_ns;
  if (none && scheduled) next_.erase(sources_, source);
  if (!none && scheduled) next_.update(sources_, at, source);
  if (!none && !scheduled) next_.push(sources_, at, source);
}

void Simulation::arrivals(TimeNs now) {
  burst_.clear();
  while (!next_.empty() && next_.top().key == now && next_.top().id >= lanes()) {
    const TenantId tenant = next_.top().id - lanes();
    if (offered_ < spec_.requests) arrive(tenant, now);
    draw_arrival(tenant, true);
  }
  if (!burst_.empty()) scheduler_.arrive(burst_, now, actions_);
}

void Simulation::arrive(TenantId tenant, TimeNs now) {
  const SimTenant& facts = spec_.tenants[tenant];
  const TimeNs objective = facts.slo_ns == kNever ? kNever : now + facts.slo_ns;
  const RequestId id = slot();
  live_[id] = {offered_++, tenant, now, objective};
  Sizes& sizes = sizes_[tenant];
  const std::uint32_t samples =
      sizes.samples.empty() ? facts.samples : sizes.samples[sizes.random.pick(sizes.sums)];
  burst_.push_back({id, tenant, samples, 0, now, facts.drops ? objective : kNever});
  result_.stats.on_arrive(tenant);
  if (!spec_.timeline) return;
  Event event{.time = now, .id = live_[id].number, .at = tenant};
  result_.timeline.events.push_back(event);
}

RequestId Simulation::slot() {
  if (free_.empty()) {
    live_.emplace_back();
    return live_.size() - 1;
  }
  const RequestId id = free_.back();
  free_.pop_back();
  return id;
}

void Simulation::finish(LaneId lane, TimeNs now) {
  next_.erase(sources_, lane);
  LaneState& state = lane_states_[lane];
  result_.stats.on_idle(lane, now - state.started);
  const LaunchId launch = std::exchange(state.launch, 0);
  for (const RequestId id : state.requests) {
    const Live& live = live_[id];
    result_.stats.on_finish({live.tenant, live.arrival, live.objective, state.started, now},
                            state.samples, state.tenants);
    free_.push_back(id);
  }
  if (spec_.timeline) {
    result_.timeline.events.push_back(
        {.time = now, .kind = EventKind::kFinish, .id = launch, .at = lane});
  }
  scheduler_.finish(launch, now, actions_);
}

void Simulation::act(TimeNs now) {
  for (const Drop& each : actions_.drops) drop(each, now);
  for (const Start& each : actions_.starts) start(each, now);
}

void Simulation::drop(const Drop& drop, TimeNs now) {
  result_.stats.on_drop(drop.tenant, drop.reason);
  if (spec_.timeline) {
    result_.timeline.events.push_back({.time = now,
                                       .kind = EventKind::kDrop,
                                       .reason = drop.reason,
                                       .id = live_[drop.request].number,
                                       .at = drop.tenant});
  }
  free_.push_back(drop.request);
}

void Simulation::start(const Start& start, TimeNs now) {
  LaneState& state = lane_states_[start.lane];
  const auto first = actions_.requests.begin() + start.first;
  state.launch = start.launch;
  state.family = start.family;
  state.started = now;
  state.samples = start.samples;
  state.tenants = count_tenants(start);
  state.requests.assign(first, first + start.count);
  result_.stats.on_start(start, state.tenants);
  next_.push(sources_, now + service_ns(start, now), start.lane);
  if (!spec_.timeline) return;
  Timeline& timeline = result_.timeline;
  timeline.events.push_back({.time = now,
                             .kind = EventKind::kStart,
                             .id = start.launch,
                             .at = start.lane,
                             .bucket = start.bucket,
                             .first = timeline.requests.size(),
                             .count = start.count});
  for (const RequestId id : state.requests) timeline.requests.push_back(live_[id].number);
}

std::uint32_t Simulation::count_tenants(const Start& start) {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < start.count; ++i) {
    std::uint64_t& seen = seen_[live_[actions_.requests[start.first + i]].tenant];
    count += seen != start.launch;
    seen = start.launch;
  }
  return count;
}

TimeNs Simulation::service_ns(const Start& start, TimeNs now) {
  const std::vector<std::uint32_t>& buckets = spec_.families[start.family].buckets;
  const std::vector<TimeNs>& latencies = latency_[start.family][start.lane];
  const std::size_t place = std::min<std::size_t>(
      static_cast<std::size_t>(std::lower_bound(buckets.begin(), buckets.end(), start.bucket) -
                               buckets.begin()),
      buckets.size() - 1);
  if (latencies[place] == 0) {
    throw std::invalid_argument("latencies: none for family " + std::to_string(start.family) +
                                " on lane " + std::to_string(start.lane) + ", bucket " +
                                std::to_string(buckets[place]));
  }
  double factor = slowdown(start, now) * (1 + interference(start));
  if (start.bucket > buckets.back()) factor *= static_cast<double>(start.bucket) / buckets.back();
  if (spec_.noise == Noise::kExponential) factor *= noise_.exponential();
  if (spec_.noise == Noise::kLognormal) factor *= noise_.lognormal(spec_.noise_cv);
  if (spec_.noise == Noise::kRecorded) factor *= noise_.one_of(spec_.noise_factors) / mean_factor_;
  const double service = static_cast<double>(latencies[place]) * factor;
  return std::max<TimeNs>(std::llround(service), 1);
}

double Simulation::slowdown(const Start& start, TimeNs now) const {
  double worst = 1.0;
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const TenantId tenant = live_[actions_.requests[start.first + i]].tenant;
    for (const Slowdown& slow : spec_.tenants[tenant].slowdowns) {
      if (now >= slow.from && now < slow.until) worst = std::max(worst, slow.factor);
    }
  }
  return worst;
}

// What runs beside the launch as it starts counts for all of it.
double Simulation::interference(const Start& start) const {
  double extra = 0;
  for (const SimInterference& pair : neighbours_[start.lane]) {
    const LaneState& other = lane_states_[pair.other];
    if (pair.family != start.family || other.launch == 0) continue;
    if (other.family == pair.beside) extra += pair.extra;
  }
  return extra;
}

}  // namespace

SimResult simulate(const SimSpec& spec) { return Simulation(spec).run(); }

}  // namespace st::sched
