// straggler.h: tells a slow tenant from a slow family, and sends it to launches of its own.
//
// Observed is compared with the *uncorrected* prediction, so learning cannot hide a straggler.
// A tenant that stays above `multiple`, in the mean and in `patience` launches on end, leaves,
// unless the family's launches without it were about as slow. It leaves on trial, one tenant of a
// family at a time, for those that share every launch look alike: if the family stays slow without
// it and it is no worse on its own, it is back at once. Each acquittal doubles its patience, so a
// family that is slow as a whole is soon left in peace; two stragglers that share every launch are
// taken for such a family. A straggler is back after `patience` consecutive launches of its own
// below `recovery`, or no longer clearly above its family's.
#pragma once

#include <vector>

#include "sched/facts.h"
#include "sched/running.h"
#include "sched/types.h"

namespace st::sched {

class Stragglers {
 public:
  explicit Stragglers(const Facts& facts) : facts_(facts) {}

  void add_tenant() { records_.emplace_back(); }
  void add_family() { watched_.push_back(false); }
  void forget(TenantId tenant) { records_[tenant] = {}; }
  bool solo(TenantId tenant) const { return records_[tenant].solo; }
  double ratio(TenantId tenant) const { return records_[tenant].ratio; }

  // observe: a launch took `ratio` times its base prediction. Appends to `changed` the tenants
  // that leave their family or come back (solo() has the new state).
  void observe(const Running& launch, double ratio, std::vector<TenantId>& changed);

 private:
  struct Record {
    double ratio = 0;           // mean of the launches it took part in; 0 = none yet
    double without = 0;         // mean of the family's launches without it; 0 = none yet
    std::uint32_t strikes = 0;  // consecutive launches, and the mean, above the multiple
    std::uint32_t quick = 0;    // consecutive recovered launches of its own
    std::uint32_t acquittals = 0;
    bool solo = false;
    bool trial = false;  // solo, and not yet compared with its family
  };

  void note(Record& record, double ratio);
  void judge_fused(FamilyId family, TenantId tenant, std::vector<TenantId>& changed);
  void judge_solo(TenantId tenant, double ratio, std::vector<TenantId>& changed);
  void come_back(TenantId tenant, bool acquitted, std::vector<TenantId>& changed);
  bool another_fused(FamilyId family, TenantId tenant) const;
  bool trial_open(FamilyId family) const;
  void note_absent(const Running& launch, double ratio);

  const Facts& facts_;
  std::vector<Record> records_;  // by tenant
  std::vector<char> watched_;    // by family: some tenant is suspect or solo
};

}  // namespace st::sched
