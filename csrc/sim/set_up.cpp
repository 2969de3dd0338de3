// set_up.cpp: a simulation's specification and its changes.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "sim/sim_state.h"

namespace st::sim {

Simulation::State::State(SimSpec spec)
    : spec_(std::move(spec)), scheduler_(spec_.policy, spec_.record), noise_(spec_.seed, ~0ull) {
  set_up();
}

void Simulation::State::check_end() const {
  if (spec_.horizon_ns != kNever || spec_.requests != ~0ull) return;
  for (const SimTenant& tenant : spec_.tenants) {
    if (tenant.arrivals.process != Process::kTrace) {
      throw std::invalid_argument("simulate: name a horizon_ns or a number of requests");
    }
  }
}

void Simulation::State::set_up() {
  if (spec_.noise == Noise::kLognormal && !(std::isfinite(spec_.noise_cv) && spec_.noise_cv > 0)) {
    throw std::invalid_argument("noise_cv: must be positive");
  }
  check_factors();
  for (const LaneSpec& lane : spec_.lanes) add_lane(lane);
  for (const FamilySpec& family : spec_.families) {
    scheduler_.add_family(family);
    latency_.emplace_back(lanes(), std::vector<TimeNs>(family.buckets.size(), 0));
  }
  for (const SimLatency& latency : spec_.latencies) add_latency(latency);
  for (const SimInterference& pair : spec_.interference) add_interference(pair);
  sources_.resize(spec_.tenants.size());
  seen_.resize(spec_.tenants.size());
  for (TenantId id = 0; id < spec_.tenants.size(); ++id) add_tenant(id);
  for (const SimDuty& duty : spec_.duty) scheduler_.set_duty(duty.lane, duty.turns);
}

void Simulation::State::check_factors() {
  if (spec_.noise != Noise::kRecorded) return;
  const std::vector<double>& factors = spec_.noise_factors;
  const auto sound = [](double factor) { return std::isfinite(factor) && factor > 0; };
  if (factors.empty() || !std::all_of(factors.begin(), factors.end(), sound)) {
    throw std::invalid_argument("noise_factors: must be positive, at least one");
  }
  mean_factor_ = std::accumulate(factors.begin(), factors.end(), 0.0) / factors.size();
}

LaneId Simulation::State::add_lane(const LaneSpec& spec) {
  const LaneId lane = scheduler_.add_lane(spec);
  result_.stats.add_lane();
  lane_states_.emplace_back();
  neighbours_.emplace_back();
  busy_.emplace_back();
  for (std::size_t family = 0; family < latency_.size(); ++family) {
    latency_[family].emplace_back(spec_.families[family].buckets.size(), 0);
  }
  return lane;
}

void Simulation::State::add_tenant(TenantId id) {
  const SimTenant& tenant = spec_.tenants[id];
  if (tenant.samples == 0) throw std::invalid_argument("samples: must be at least 1");
  if (tenant.slo_ns <= 0) throw std::invalid_argument("slo_ns: must be positive");
  scheduler_.add_tenant(tenant.spec);
  result_.stats.add_tenant();
  const std::uint64_t stream = tenant.stream == ~0ull ? id : tenant.stream;
  arrivals_.emplace_back(tenant.arrivals, Random(spec_.seed, stream));
  add_sizes(tenant, stream);
  draw_arrival(id);
}

// Sizes are a stream of their own: when requests arrive does not depend on how large they are.
void Simulation::State::add_sizes(const SimTenant& tenant, std::uint64_t stream) {
  SimSizes& sizes = sizes_.emplace_back(SimSizes{{}, {}, Random(spec_.seed, ~stream ^ 1ull << 63)});
  for (const auto& [samples, weight] : tenant.sizes) {
    if (samples == 0 || !std::isfinite(weight) || weight <= 0) {
      throw std::invalid_argument("sizes: must map samples from 1 to positive weights");
    }
    sizes.samples.push_back(samples);
    sizes.sums.push_back(weight + (sizes.sums.empty() ? 0 : sizes.sums.back()));
  }
}

void Simulation::State::add_latency(const SimLatency& latency) {
  scheduler_.set_latency(latency.family, latency.lane, latency.bucket, latency.latency_ns);
  const std::vector<std::uint32_t>& buckets = spec_.families[latency.family].buckets;
  const auto place = std::find(buckets.begin(), buckets.end(), latency.bucket) - buckets.begin();
  latency_[latency.family][latency.lane][static_cast<std::size_t>(place)] = latency.latency_ns;
}

void Simulation::State::add_interference(const SimInterference& pair) {
  if (pair.lane >= lanes() || pair.other >= lanes() || pair.lane == pair.other) {
    throw std::invalid_argument("interference.lane: must name two different lanes");
  }
  if (!std::isfinite(pair.extra) || pair.extra < 0) {
    throw std::invalid_argument("interference.extra: must be 0 or positive");
  }
  neighbours_[pair.lane].push_back(pair);
}

// ---- changes --------------------------------------------------------------------------------

void Simulation::State::change_routes(TenantId tenant, Routes routes, bool move) {
  actions_.clear();
  scheduler_.set_routes(tenant, std::move(routes), move, now_, actions_);
  act(now_);
}

void Simulation::State::change_batch(FamilyId family, LaneId lane, std::uint32_t samples) {
  actions_.clear();
  scheduler_.set_batch(family, lane, samples, now_, actions_);
  act(now_);
}

void Simulation::State::change_rate(TenantId tenant, double rate) {
  if (tenant >= arrivals_.size()) throw std::invalid_argument("set_rate.tenant: unknown id");
  const TimeNs at = arrivals_[tenant].set_rate(rate, now_);
  schedule(tenant, offered_ < spec_.requests ? at : kNever);
}

// ---- the public face ------------------------------------------------------------------------

namespace {

SimResult recorded(SimResult result, const Recorder& scheduler) {
  result.recording = scheduler.recording();
  if (!result.recording.empty()) tape::seal(result.recording);
  return result;
}

}  // namespace

Simulation::Simulation(SimSpec spec) : state_(std::make_unique<State>(std::move(spec))) {}
Simulation::~Simulation() = default;

SimResult Simulation::result() && {
  return recorded(std::move(state_->result_), state_->scheduler_);
}

bool Simulation::run_until(TimeNs time) {
  if (time == kNever) state_->check_end();
  return state_->run_until(time);
}

TimeNs Simulation::now() const { return state_->now_; }
const Stats& Simulation::stats() const { return state_->result_.stats; }
const Recorder& Simulation::scheduler() const { return state_->scheduler_; }
SimResult Simulation::result() const& { return recorded(state_->result_, state_->scheduler_); }
LaneId Simulation::add_lane(const LaneSpec& spec) { return state_->add_lane(spec); }
void Simulation::close_lane(LaneId lane) { state_->scheduler_.close_lane(lane); }
void Simulation::set_latency(const SimLatency& latency) { state_->add_latency(latency); }
void Simulation::set_rate(TenantId tenant, double rate) { state_->change_rate(tenant, rate); }

void Simulation::set_batch(FamilyId family, LaneId lane, std::uint32_t samples) {
  state_->change_batch(family, lane, samples);
}

void Simulation::set_duty(LaneId lane, std::vector<DutyTurn> turns) {
  state_->scheduler_.set_duty(lane, std::move(turns));
}

void Simulation::set_routes(TenantId tenant, Routes routes, bool move) {
  state_->change_routes(tenant, std::move(routes), move);
}

SimResult simulate(SimSpec spec) {
  Simulation simulation(std::move(spec));
  simulation.run_until(kNever);
  return std::move(simulation).result();
}

}  // namespace st::sim
