#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "sim/sim_state.h"

namespace st::sim {

bool Simulation::State::run_until(TimeNs time) {
  for (;;) {
    const TimeNs at = step(time);
    if (at == kNever) break;
    if (at > time) {
      now_ = std::max(now_, time);
      return true;
    }
  }
  now_ = std::max(now_, time == kNever ? result_.end_ns : time);
  return false;
}

// step: the next event, unless it comes after `last`. Gives its instant, kNever if there is none.
TimeNs Simulation::State::step(TimeNs last) {
  const TimeNs finish_at = finishes_.empty() ? kNever : finishes_.top().key;
  const TimeNs event = std::min(finish_at, next_.empty() ? kNever : next_.top().key);
  const TimeNs wake = scheduler_.next_wake();
  const TimeNs now = std::min(event, wake);
  if (now == kNever || now > last) return now;
  result_.end_ns = now;
  actions_.clear();
  if (wake < event) {
    scheduler_.wake(now, actions_);
  } else if (finish_at == now) {
    finish(finishes_.top().id, now);
  } else {
    arrivals(now);
  }
  act(now);
  return now;
}

void Simulation::State::draw_arrival(TenantId tenant) {
  schedule(tenant, offered_ < spec_.requests ? arrivals_[tenant].next() : kNever);
}

void Simulation::State::schedule(TenantId tenant, TimeNs at) {
  const bool scheduled = sources_[tenant].place != kNone;
  const bool none = at == kNever || at >= spec_.horizon_ns;
  if (none && scheduled) next_.erase(sources_, tenant);
  if (!none && scheduled) next_.update(sources_, at, tenant);
  if (!none && !scheduled) next_.push(sources_, at, tenant);
}

void Simulation::State::arrivals(TimeNs now) {
  burst_.clear();
  while (!next_.empty() && next_.top().key == now) {
    const TenantId tenant = next_.top().id;
    if (offered_ < spec_.requests) arrive(tenant, now);
    draw_arrival(tenant);
  }
  if (!burst_.empty()) scheduler_.arrive(burst_, now, actions_);
}

void Simulation::State::arrive(TenantId tenant, TimeNs now) {
  const SimTenant& facts = spec_.tenants[tenant];
  const TimeNs objective = facts.slo_ns == kNever ? kNever : now + facts.slo_ns;
  const RequestId id = slot();
  SimSizes& sizes = sizes_[tenant];
  const std::uint32_t samples =
      sizes.samples.empty() ? facts.samples : sizes.samples[sizes.random.pick(sizes.sums)];
  live_[id] = {offered_++, tenant, now, objective, samples};
  burst_.push_back({id, tenant, samples, kTenants, now, facts.drops ? objective : kNever});
  result_.stats.on_arrive(tenant);
  if (!spec_.timeline) return;
  SimEvent event{.time = now, .id = live_[id].number, .at = tenant};
  result_.timeline.events.push_back(event);
}

RequestId Simulation::State::slot() {
  if (free_.empty()) {
    live_.emplace_back();
    return live_.size() - 1;
  }
  const RequestId id = free_.back();
  free_.pop_back();
  return id;
}

void Simulation::State::finish(LaneId lane, TimeNs now) {
  finishes_.erase(busy_, lane);
  SimLane& state = lane_states_[lane];
  result_.stats.on_idle(lane, now - state.started);
  const LaunchId launch = std::exchange(state.launch, 0);
  for (const RequestId id : state.requests) {
    const SimLive& live = live_[id];
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

void Simulation::State::act(TimeNs now) {
  for (const Drop& each : actions_.drops) drop(each, now);
  for (const Start& each : actions_.starts) start(each, now);
}

void Simulation::State::drop(const Drop& drop, TimeNs now) {
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

void Simulation::State::start(const Start& start, TimeNs now) {
  SimLane& state = lane_states_[start.lane];
  const auto first = actions_.requests.begin() + start.first;
  state.launch = start.launch;
  state.family = start.family;
  state.started = now;
  state.samples = start.samples;
  state.tenants = count_tenants(start);
  state.requests.assign(first, first + start.count);
  result_.stats.on_start(start, state.tenants);
  finishes_.push(busy_, now + service_ns(start, now), start.lane);
  if (!spec_.timeline) return;
  SimTimeline& timeline = result_.timeline;
  timeline.events.push_back({.time = now,
                             .kind = EventKind::kStart,
                             .id = start.launch,
                             .at = start.lane,
                             .bucket = start.bucket,
                             .first = timeline.requests.size(),
                             .count = start.count});
  for (const RequestId id : state.requests) timeline.requests.push_back(live_[id].number);
}

std::uint32_t Simulation::State::count_tenants(const Start& start) {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const SimLive& live = live_[actions_.requests[start.first + i]];
    const bool first = seen_[live.tenant] != start.launch;
    count += first;
    seen_[live.tenant] = start.launch;
    result_.stats.on_begin(live.tenant, live.samples, first);
  }
  return count;
}

TimeNs Simulation::State::service_ns(const Start& start, TimeNs now) {
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

double Simulation::State::slowdown(const Start& start, TimeNs now) const {
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
double Simulation::State::interference(const Start& start) const {
  double extra = 0;
  for (const SimInterference& pair : neighbours_[start.lane]) {
    const SimLane& other = lane_states_[pair.other];
    if (pair.family != start.family || other.launch == 0) continue;
    if (other.family == pair.beside) extra += pair.extra;
  }
  return extra;
}

}  // namespace st::sim
