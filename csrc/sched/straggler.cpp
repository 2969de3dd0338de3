#include "sched/straggler.h"

#include <algorithm>

namespace st::sched {
namespace {

constexpr double kRate = 0.25;     // of the moving means
constexpr double kClearly = 1.25;  // how much worse than the others is clearly worse
constexpr std::uint32_t kMostDoublings = 16;

double mean(double before, double sample) {
  return before == 0 ? sample : before + kRate * (sample - before);
}

}  // namespace

void Stragglers::observe(const Running& launch, double ratio, std::vector<TenantId>& changed) {
  if (facts_.policy().straggler.multiple == 0) return;
  for (const Share& share : launch.shares) {
    Record& record = records_[share.tenant];
    if (!facts_.alive(share.tenant) || (record.solo && launch.solo != share.tenant)) continue;
    note(record, ratio);
    if (record.strikes > 0 || record.solo) watched_[launch.family] = true;
  }
  if (!watched_[launch.family]) return;
  note_absent(launch, ratio);
  for (const Share& share : launch.shares) {
    if (!facts_.alive(share.tenant)) continue;
    if (!records_[share.tenant].solo) judge_fused(launch.family, share.tenant, changed);
  }
  if (launch.solo != kNone && solo(launch.solo)) judge_solo(launch.solo, ratio, changed);
}

void Stragglers::note(Record& record, double ratio) {
  record.ratio = mean(record.ratio, ratio);
  if (record.solo) return;
  // A quick launch clears at once: the mean alone would suspect the innocent for a while longer.
  if (std::min(ratio, record.ratio) > facts_.policy().straggler.multiple) {
    ++record.strikes;
  } else {
    record = {.ratio = record.ratio};
  }
}

void Stragglers::note_absent(const Running& launch, double ratio) {
  bool watched = false;
  for (const TenantId tenant : facts_.members(launch.family)) {
    Record& record = records_[tenant];
    if (record.strikes == 0 && !record.solo) continue;
    watched = true;
    const auto present = [tenant](const Share& share) { return share.tenant == tenant; };
    if (std::any_of(launch.shares.begin(), launch.shares.end(), present)) continue;
    record.without = mean(record.without, ratio);
  }
  watched_[launch.family] = watched;
}

void Stragglers::judge_fused(FamilyId family, TenantId tenant, std::vector<TenantId>& changed) {
  Record& record = records_[tenant];
  const std::uint64_t patience = facts_.policy().straggler.patience;
  if (record.strikes < patience << std::min(record.acquittals, kMostDoublings)) return;
  if (!another_fused(family, tenant) || trial_open(family)) return;
  if (record.without > 0 && record.ratio < kClearly * record.without) {
    record = {.ratio = record.ratio, .acquittals = record.acquittals + 1};
    return;
  }
  record.solo = true;
  record.trial = true;
  record.ratio = record.without = 0;  // judged by what it does on its own
  record.quick = 0;
  changed.push_back(tenant);
}

void Stragglers::judge_solo(TenantId tenant, double ratio, std::vector<TenantId>& changed) {
  Record& record = records_[tenant];
  const StragglerRule& rule = facts_.policy().straggler;
  const bool recovered =
      ratio < rule.recovery || (record.without > 0 && ratio < kClearly * record.without);
  record.quick = recovered ? record.quick + 1 : 0;
  const bool tried = record.trial && record.without > 0;
  if (tried) record.trial = false;
  if (tried && recovered && record.without > rule.multiple) {
    return come_back(tenant, true, changed);
  }
  if (record.quick >= rule.patience) come_back(tenant, false, changed);
}

void Stragglers::come_back(TenantId tenant, bool acquitted, std::vector<TenantId>& changed) {
  const std::uint32_t acquittals = acquitted ? records_[tenant].acquittals + 1 : 0;
  records_[tenant] = {.acquittals = acquittals};
  changed.push_back(tenant);
}

bool Stragglers::another_fused(FamilyId family, TenantId tenant) const {
  const std::vector<TenantId>& members = facts_.members(family);
  return std::any_of(members.begin(), members.end(),
                     [&](TenantId t) { return t != tenant && !records_[t].solo; });
}

bool Stragglers::trial_open(FamilyId family) const {
  const std::vector<TenantId>& members = facts_.members(family);
  return std::any_of(members.begin(), members.end(), [&](TenantId t) { return records_[t].trial; });
}

}  // namespace st::sched
