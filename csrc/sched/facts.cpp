#include "sched/facts.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace st::sched {
namespace {

constexpr double kLearnRate = 1.0 / 8;
constexpr double kLeastFactor = 0.25;  // corrections outside [1/4, 4] mean a wrong profile
constexpr double kMostFactor = 4.0;

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

void require_id(std::uint32_t id, std::size_t count, const char* field) {
  if (id >= count) {
    throw std::invalid_argument(std::string(field) + ": unknown id " + std::to_string(id) + " of " +
                                std::to_string(count));
  }
}

bool positive(double value) { return std::isfinite(value) && value > 0; }

TimeNs scaled(TimeNs value, double factor) {
  return static_cast<TimeNs>(std::llround(static_cast<double>(value) * factor));
}

}  // namespace

Facts::Facts(const Policy& policy) : policy_(policy) {
  const StragglerRule& straggler = policy.straggler;
  require(policy.timeout_ns >= 0, "Policy.timeout_ns: must not be negative");
  require(policy.max_borrow_ns > 0, "Policy.max_borrow_ns: must be positive");
  require(policy.age_ns > 0, "Policy.age_ns: must be positive");
  require(positive(policy.elsa_alpha), "Policy.elsa_alpha: must be positive");
  require(positive(policy.elsa_beta), "Policy.elsa_beta: must be positive");
  require(std::isfinite(straggler.multiple) && straggler.multiple >= 0,
          "Policy.straggler.multiple: must be 0 (off) or positive");
  if (straggler.multiple == 0) return;
  require(positive(straggler.recovery) && straggler.recovery < straggler.multiple,
          "Policy.straggler.recovery: must be positive and below the multiple");
  require(straggler.patience > 0, "Policy.straggler.patience: must be at least 1");
}

LaneId Facts::add_lane(const LaneSpec& spec) {
  require(spec.units > 0, "LaneSpec.units: must be at least 1");
  const LaneId id = lanes();
  lanes_.push_back(spec);
  closed_.push_back(false);
  every_.push_back(id);
  if (spec.pool != kNone) pools_[spec.pool].push_back(id);
  const auto larger = [this](std::uint32_t units, LaneId lane) {
    return units < lanes_[lane].units;
  };
  by_units_.insert(std::upper_bound(by_units_.begin(), by_units_.end(), spec.units, larger), id);
  for (Family& family : families_) {
    family.rows.emplace_back().given.assign(family.buckets.size(), kNever);
    fill(family, family.rows.back());
  }
  return id;
}

FamilyId Facts::add_family(const FamilySpec& spec) {
  require(!spec.buckets.empty(), "FamilySpec.buckets: must name at least one batch size");
  require(spec.buckets.front() > 0, "FamilySpec.buckets: batch sizes start at 1");
  const auto falls = std::adjacent_find(spec.buckets.begin(), spec.buckets.end(),
                                        [](auto a, auto b) { return a >= b; });
  require(falls == spec.buckets.end(), "FamilySpec.buckets: must ascend without repeats");
  Family family;
  family.buckets = spec.buckets;
  family.rows.resize(lanes_.size());
  for (Row& row : family.rows) {
    row.given.assign(spec.buckets.size(), kNever);
    fill(family, row);
  }
  families_.push_back(std::move(family));
  return families() - 1;
}

TenantId Facts::add_tenant(const TenantSpec& spec) {
  check_tenant(spec);
  tenants_.push_back({spec, true});
  families_[spec.family].tenants.push_back(tenants() - 1);
  return tenants() - 1;
}

void Facts::check_tenant(const TenantSpec& spec) const {
  require(!lanes_.empty(), "TenantSpec: add a lane before the first tenant");
  require_id(spec.family, families_.size(), "TenantSpec.family");
  require(positive(spec.weight), "TenantSpec.weight: must be positive");
  require(spec.priority != kTenants, "TenantSpec.priority: must be above -2^31");
  require(spec.queue_limit > 0, "TenantSpec.queue_limit: must be at least 1");
  if (spec.lane != kNone) check_open(spec.lane, "TenantSpec.lane");
  require(policy_.route != Route::kPinned || spec.lane != kNone,
          "TenantSpec.lane: route pinned needs the tenant's lane");
  check_lane_weights(spec);
  if (policy_.straggler_lane != kNone) {
    require_id(policy_.straggler_lane, lanes_.size(), "Policy.straggler_lane");
  }
}

void Facts::check_lane_weights(const TenantSpec& spec) const {
  require(spec.lane_weights.size() <= lanes_.size(),
          "TenantSpec.lane_weights: has more entries than there are lanes");
  double total = 0;
  for (LaneId lane = 0; lane < spec.lane_weights.size(); ++lane) {
    const double weight = spec.lane_weights[lane];
    require(std::isfinite(weight) && weight >= 0,
            "TenantSpec.lane_weights: must be finite and not negative");
    if (weight > 0) check_open(lane, "TenantSpec.lane_weights");
    total += weight;
  }
  require(policy_.route != Route::kWeighted || total > 0 || spec.lane != kNone,
          "TenantSpec.lane_weights: route weighted needs a positive weight, or a lane");
}

void Facts::bury(TenantId tenant) {
  tenants_[tenant].alive = false;
  std::erase(families_[tenants_[tenant].spec.family].tenants, tenant);
}

void Facts::set_routes(TenantId tenant, Routes routes) {
  require_id(tenant, tenants_.size(), "set_routes.tenant");
  require(tenants_[tenant].alive, "set_routes.tenant: was removed");
  TenantSpec spec = tenants_[tenant].spec;
  spec.lane = routes.lane;
  spec.lane_weights = std::move(routes.lane_weights);
  check_tenant(spec);
  tenants_[tenant].spec = std::move(spec);
}

void Facts::set_batch(FamilyId family, LaneId lane, std::uint32_t samples) {
  check_ids(family, lane);
  Family& facts = families_[family];
  const bool bucket = std::count(facts.buckets.begin(), facts.buckets.end(), samples) > 0;
  require(samples == 0 || samples == kNone || bucket,
          "set_batch.samples: must be 0 or a bucket of the family");
  if (samples == 0) check_somewhere(family, lane);
  facts.rows[lane].limit = samples;
  fill(facts, facts.rows[lane]);
}

void Facts::close_lane(LaneId lane) {
  check_open(lane, "close_lane.lane");
  require(policy_.straggler_lane != lane, "close_lane.lane: the stragglers' lane stays open");
  for (TenantId id = 0; id < tenants(); ++id) {
    if (!tenants_[id].alive || !leads_to(tenants_[id].spec, lane)) continue;
    throw std::invalid_argument("close_lane.lane: tenant " + std::to_string(id) +
                                " is still routed there");
  }
  for (FamilyId id = 0; id < families(); ++id) check_somewhere(id, lane);
  closed_[lane] = true;
  lanes_[lane].borrows = false;
  std::erase(every_, lane);
  if (lanes_[lane].pool != kNone) std::erase(pools_[lanes_[lane].pool], lane);
  lanes_[lane].pool = kNone;
  std::erase(by_units_, lane);
  for (Family& family : families_) {
    family.rows[lane].limit = 0;
    fill(family, family.rows[lane]);
  }
}

bool Facts::leads_to(const TenantSpec& spec, LaneId lane) const {
  if (policy_.route == Route::kPinned) return spec.lane == lane;
  if (policy_.route != Route::kWeighted) return false;
  const auto given = [](double weight) { return weight > 0; };
  const bool weighted = std::any_of(spec.lane_weights.begin(), spec.lane_weights.end(), given);
  if (!weighted) return spec.lane == lane;
  return lane < spec.lane_weights.size() && spec.lane_weights[lane] > 0;
}

// check_somewhere: a route that chooses by itself keeps a lane to choose, without `but`.
void Facts::check_somewhere(FamilyId family, LaneId but) const {
  if (policy_.route == Route::kPinned || policy_.route == Route::kWeighted) return;
  if (families_[family].tenants.empty()) return;
  for (LaneId lane = 0; lane < lanes(); ++lane) {
    if (lane != but && eligible(family, lane)) return;
  }
  throw std::invalid_argument("lane: family " + std::to_string(family) + " has no other to run on");
}

void Facts::check_lane(LaneId lane, const char* field) const {
  require_id(lane, lanes_.size(), field);
}

void Facts::check_open(LaneId lane, const char* field) const {
  check_lane(lane, field);
  if (!closed_[lane]) return;
  throw std::invalid_argument(std::string(field) + ": lane " + std::to_string(lane) + " is closed");
}

void Facts::check_turns(LaneId lane, const std::vector<DutyTurn>& turns) const {
  require(policy_.order == Order::kDuty, "set_duty: the policy's order is not duty");
  check_open(lane, "set_duty.lane");
  for (const DutyTurn& turn : turns) {
    require_id(turn.tenant, tenants_.size(), "DutyTurn.tenant");
    require(turn.batch > 0, "DutyTurn.batch: must be at least 1");
  }
}

void Facts::check_ids(FamilyId family, LaneId lane) const {
  require_id(family, families_.size(), "family");
  require_id(lane, lanes_.size(), "lane");
}

void Facts::set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
  check_ids(family, lane);
  Family& facts = families_[family];
  const auto place = std::find(facts.buckets.begin(), facts.buckets.end(), bucket);
  require(place != facts.buckets.end(), "set_latency.bucket: not a bucket of the family");
  require(latency_ns > 0 && latency_ns < kNever / 1024,
          "set_latency.latency_ns: must be positive and below 100 days");
  check_open(lane, "set_latency.lane");
  Row& row = facts.rows[lane];
  row.given[static_cast<std::size_t>(place - facts.buckets.begin())] = latency_ns;
  facts.measured = true;
  fill(facts, row);
}

// A missing bucket costs what the next larger known one costs; above the last, in proportion.
void Facts::fill(const Family& family, Row& row) {
  const std::size_t count = family.buckets.size();
  row.base.assign(count, 0);
  row.corrected.assign(count, 0);
  row.largest = family.buckets.back();
  row.known = false;
  for (std::size_t i = 0; i < count; ++i) {
    if (row.given[i] == kNever) continue;
    row.largest = family.buckets[i];
    row.known = row.limit > 0;
  }
  if (row.limit > 0) row.largest = std::min(row.largest, row.limit);
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t known = i;
    while (known < count && row.given[known] == kNever) ++known;
    if (known < count) {
      row.base[i] = row.given[known];
    } else if (i > 0) {
      row.base[i] =
          scaled(row.base[i - 1], static_cast<double>(family.buckets[i]) / family.buckets[i - 1]);
    }
    row.corrected[i] = scaled(row.base[i], row.factor);
  }
}

std::uint32_t Facts::bucket(FamilyId family, std::uint32_t samples) const {
  for (const std::uint32_t bucket : families_[family].buckets) {
    if (bucket >= samples) return bucket;
  }
  return samples;
}

std::uint32_t Facts::bucket_below(FamilyId family, std::uint32_t samples) const {
  std::uint32_t below = 0;
  for (const std::uint32_t bucket : families_[family].buckets) {
    if (bucket <= samples) below = bucket;
  }
  return below;
}

namespace {

TimeNs look_up(const std::vector<std::uint32_t>& buckets, const std::vector<TimeNs>& latencies,
               std::uint32_t samples) {
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i] >= samples) return latencies[i];
  }
  return scaled(latencies.back(), static_cast<double>(samples) / buckets.back());
}

}  // namespace

TimeNs Facts::base_ns(FamilyId family, LaneId lane, std::uint32_t samples) const {
  return look_up(families_[family].buckets, row(family, lane).base, samples);
}

TimeNs Facts::predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) const {
  return look_up(families_[family].buckets, row(family, lane).corrected, samples);
}

void Facts::learn(FamilyId family, LaneId lane, double ratio) {
  Row& row = families_[family].rows[lane];
  const double bounded = std::clamp(ratio, kLeastFactor, kMostFactor);
  row.factor += kLearnRate * (bounded - row.factor);
  for (std::size_t i = 0; i < row.base.size(); ++i) {
    row.corrected[i] = scaled(row.base[i], row.factor);
  }
}

}  // namespace st::sched
