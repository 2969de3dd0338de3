// facts.h: what the scheduler was told (policy, lanes, families, tenants, latencies) and what it
// learnt about the latencies. Checks every word of it; the event path then needs no checks.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "sched/types.h"

namespace st::sched {

struct TenantFacts {
  TenantSpec spec;
  bool alive = true;
};

class Facts {
 public:
  explicit Facts(const Policy& policy);

  LaneId add_lane(const LaneSpec& spec);
  FamilyId add_family(const FamilySpec& spec);
  TenantId add_tenant(const TenantSpec& spec);
  void set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns);
  // set_routes: of an alive tenant, checked as in add_tenant.
  void set_routes(TenantId tenant, Routes routes);
  // set_batch: the most samples a launch of the family on the lane takes: a bucket, kNone for as
  // many as it has latencies for, 0 to let the lane run only what already waits on it.
  void set_batch(FamilyId family, LaneId lane, std::uint32_t samples);
  // close_lane: throws while some alive tenant's routes, or the stragglers', lead there.
  void close_lane(LaneId lane);
  void check_turns(LaneId lane, const std::vector<DutyTurn>& turns) const;
  void check_ids(FamilyId family, LaneId lane) const;
  void check_lane(LaneId lane, const char* field) const;
  void check_open(LaneId lane, const char* field) const;

  const Policy& policy() const { return policy_; }
  std::uint32_t lanes() const { return static_cast<std::uint32_t>(lanes_.size()); }
  std::uint32_t families() const { return static_cast<std::uint32_t>(families_.size()); }
  std::uint32_t tenants() const { return static_cast<std::uint32_t>(tenants_.size()); }
  const LaneSpec& lane(LaneId lane) const { return lanes_[lane]; }
  // shares: `runner`, idle, may run work queued on `owner`.
  bool shares(LaneId owner, LaneId runner) const {
    const std::uint32_t pool = lanes_[runner].pool;
    if (pool != kNone && pool == lanes_[owner].pool) return true;
    return policy_.lend && lanes_[runner].borrows;
  }
  bool any_shares() const { return policy_.lend || !pools_.empty(); }
  // sharing: the lanes whose work an idle `runner` may have to look at, by id.
  const std::vector<LaneId>& sharing(LaneId runner) const {
    if (policy_.lend && lanes_[runner].borrows) return every_;
    const auto found = pools_.find(lanes_[runner].pool);
    return found == pools_.end() ? nobody_ : found->second;
  }
  const TenantSpec& tenant(TenantId tenant) const { return tenants_[tenant].spec; }
  bool alive(TenantId tenant) const { return tenant < tenants_.size() && tenants_[tenant].alive; }
  void bury(TenantId tenant);
  const std::vector<TenantId>& members(FamilyId family) const { return families_[family].tenants; }
  // lanes_by_units: smallest partition first, then by id.
  const std::vector<LaneId>& lanes_by_units() const { return by_units_; }

  // knows: the lane has latencies for the family, so it may run its work.
  bool knows(FamilyId family, LaneId lane) const { return row(family, lane).known; }
  // eligible: knows, or nobody does: a family without any latency may run anywhere that is open.
  bool eligible(FamilyId family, LaneId lane) const {
    return row(family, lane).known || (!families_[family].measured && !closed_[lane]);
  }
  // largest: the biggest launch of the family on the lane: the largest bucket it has a latency for,
  // the family's own where it has none, and no more than set_batch allows.
  std::uint32_t largest(FamilyId family, LaneId lane) const { return row(family, lane).largest; }
  // bucket: smallest bucket >= samples, or samples itself above the largest.
  std::uint32_t bucket(FamilyId family, std::uint32_t samples) const;
  // bucket_below: largest bucket <= samples, 0 if none.
  std::uint32_t bucket_below(FamilyId family, std::uint32_t samples) const;

  TimeNs base_ns(FamilyId family, LaneId lane, std::uint32_t samples) const;
  TimeNs predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) const;
  // factor: predicted over base, as learnt.
  double factor(FamilyId family, LaneId lane) const { return row(family, lane).factor; }
  // learn: one launch took ratio x its base prediction.
  void learn(FamilyId family, LaneId lane, double ratio);

 private:
  struct Row {                      // latencies of one family on one lane, by bucket
    std::vector<TimeNs> given;      // kNever where nothing was set
    std::vector<TimeNs> base;       // given, gaps filled
    std::vector<TimeNs> corrected;  // base * factor
    double factor = 1.0;
    std::uint32_t largest = 0;
    std::uint32_t limit = kNone;  // set_batch; 0 = runs nothing new
    bool known = false;
  };
  struct Family {
    std::vector<std::uint32_t> buckets;
    std::vector<TenantId> tenants;
    std::vector<Row> rows;  // by lane
    bool measured = false;
  };

  const Row& row(FamilyId family, LaneId lane) const { return families_[family].rows[lane]; }
  static void fill(const Family& family, Row& row);
  void check_tenant(const TenantSpec& spec) const;
  void check_lane_weights(const TenantSpec& spec) const;
  void check_somewhere(FamilyId family, LaneId but) const;
  bool leads_to(const TenantSpec& spec, LaneId lane) const;

  Policy policy_;
  std::vector<LaneSpec> lanes_;
  std::vector<char> closed_;   // by lane
  std::vector<LaneId> every_;  // that is open
  std::vector<LaneId> nobody_;
  std::map<std::uint32_t, std::vector<LaneId>> pools_;
  std::vector<LaneId> by_units_;
  std::vector<Family> families_;
  std::vector<TenantFacts> tenants_;
};

}  // namespace st::sched
