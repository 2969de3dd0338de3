// resources.cpp: what a device has to give away: SMs, how they split, work queues, descriptors.
#include "fake/resources.h"

#include <algorithm>
#include <cstring>

namespace st::fake {
namespace {

constexpr std::uint64_t kMagic = 0x7370616365746d65;
constexpr unsigned kConnections = 32;
constexpr unsigned kAnyDomain = ~0U;

struct Opaque {  // what the fake keeps in a CUdevResource
  std::uint64_t magic;
  Resource resource;
};
static_assert(sizeof(Opaque) <= sizeof(CUdevResource::opaque));

CUdevResource queues() {
  CUdevResource all{};
  all.type = kResourceWorkqueues;
  all.wqConfig = {0, kConnections, 0};
  return all;
}

CUresult check_queues(const State& state, const CUdevResource& asked) {
  if (state.options.driver_version < kSplitVersion) return kInvalidResourceType;
  const CUdevWorkqueueConfigResource& queues = asked.wqConfig;
  const bool scope = queues.sharingScope == 0 || queues.sharingScope == kScopeBalanced;
  const bool good = queues.device == 0 && queues.wqConcurrencyLimit > 0 && scope;
  return good ? kSuccess : kInvalidResourceConfiguration;
}

// One group of cuDevSmResourceSplit out of the SMs that are `left`.
struct Grouping {
  const DataSheet& sheet;
  const SmSet& left;
  const CU_DEV_SM_RESOURCE_GROUP_PARAMS& wanted;
  unsigned coscheduled;

  bool valid(std::size_t input) const {
    const unsigned most = sheet.major >= 9 ? 32 : 2;
    const bool backfill = (wanted.flags & kGroupBackfill) != 0;
    const bool even = wanted.smCount % 2 == 0 && coscheduled % 2 == 0 && coscheduled >= 2;
    const auto* last = std::end(wanted.reserved);
    return even && wanted.smCount <= input && coscheduled <= most && (wanted.flags & ~7U) == 0 &&
           (backfill || wanted.smCount % coscheduled == 0) && (!bound() || domain().any()) &&
           std::all_of(wanted.reserved, last, [](unsigned each) { return each == 0; });
  }
  bool bound() const { return (wanted.flags & kGroupLocalityDomain) != 0; }
  SmSet domain() const {
    SmSet all;
    for (unsigned d = 0; d < sheet.domains; ++d) {
      if (wanted.localityDomainId == d || wanted.localityDomainId == kAnyDomain) {
        all |= domain_of(sheet, d);
      }
    }
    return all;
  }
  SmSet take() const {
    const SmSet from = bound() ? left & domain() : left;
    const std::size_t most = wanted.smCount == 0 ? from.count() : wanted.smCount;
    SmSet taken;
    for (const SmSet& piece : pieces(sheet, from, coscheduled, coscheduled > 2)) {
      if (taken.count() + piece.count() <= most) taken |= piece;
    }
    if ((wanted.flags & kGroupBackfill) == 0 || wanted.smCount == 0) return taken;
    for (const SmSet& where : {from, left}) {
      for (unsigned sm = 0; sm < sheet.sms && taken.count() < most; ++sm) {
        if (where[sm]) taken.set(sm);
      }
    }
    return taken;
  }
};

}  // namespace

CUdevResource pack(const State& state, const Resource& resource) {
  CUdevResource packed{};
  packed.type = kResourceSm;
  const Opaque opaque{kMagic ^ state.generation, resource};
  std::memcpy(packed.opaque, &opaque, sizeof opaque);
  packed.sm.smCount = static_cast<unsigned>(resource.sms.count());
  if (state.options.driver_version < 13000) return packed;
  packed.sm.minSmPartitionSize = state.sheet.minimum;
  packed.sm.smCoscheduledAlignment = resource.alignment;
  if (state.options.driver_version < kSplitVersion || resource.domain < 0) return packed;
  packed.sm.flags = kGroupLocalityDomain;
  packed.sm.localityDomainId = static_cast<unsigned>(resource.domain);
  return packed;
}

CUresult unpack(const State& state, const CUdevResource& packed, Resource& resource) {
  Opaque opaque;
  if (packed.type != kResourceSm) return kInvalidResourceType;
  std::memcpy(&opaque, packed.opaque, sizeof opaque);
  if (opaque.magic != (kMagic ^ state.generation)) return kInvalidResourceConfiguration;
  resource = opaque.resource;
  return kSuccess;
}

std::vector<SmSet> pieces(const DataSheet& sheet, const SmSet& sms, unsigned size,
                          bool coscheduled) {
  const unsigned end = coscheduled ? sheet.whole_groups * sheet.minimum : sheet.sms;
  std::vector<SmSet> found;
  for (unsigned first = 0; first + size <= end; first += size) {
    SmSet piece;
    for (unsigned sm = first; sm < first + size; ++sm) piece.set(sm);
    if ((piece & sms) == piece) found.push_back(piece);
  }
  return found;
}

SmSet domain_of(const DataSheet& sheet, unsigned domain) {
  SmSet sms;
  if (domain >= sheet.domains) return sms;
  const unsigned size = sheet.whole_groups / sheet.domains * sheet.minimum;
  for (unsigned sm = domain * size; sm < (domain + 1) * size; ++sm) sms.set(sm);
  return sms;
}

CUresult FakeDriver::cuDeviceGetDevResource(CUdevice device, CUdevResource* resource, int type) {
  return state_->call(Entry::cuDeviceGetDevResource, [&]() -> CUresult {
    if (device != 0) return kInvalidDevice;
    if (resource == nullptr) return kInvalidValue;
    if (type == kResourceWorkqueues && state_->options.driver_version >= kSplitVersion) {
      return *resource = queues(), kSuccess;
    }
    if (type != kResourceSm) return kInvalidResourceType;
    Resource all{.split = ++state_->serial, .sms = {}, .divisible = true};
    all.alignment = state_->sheet.alignment;
    for (unsigned sm = 0; sm < state_->sheet.sms; ++sm) all.sms.set(sm);
    *resource = pack(*state_, all);
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevSmResourceSplitByCount(CUdevResource* groups, unsigned* count,
                                                 const CUdevResource* input,
                                                 CUdevResource* remaining, unsigned flags,
                                                 unsigned minimum) {
  return state_->call(Entry::cuDevSmResourceSplitByCount, [&]() -> CUresult {
    constexpr unsigned kAllFlags = 3;
    const DataSheet& sheet = state_->sheet;
    if (count == nullptr || input == nullptr || (flags & ~kAllFlags) != 0) return kInvalidValue;
    Resource whole;
    if (const CUresult code = unpack(*state_, *input, whole); code != 0) return code;
    if (!whole.divisible) return kInvalidResourceConfiguration;
    if (minimum > whole.sms.count() || (groups != nullptr && *count == 0)) return kInvalidValue;

    const bool coscheduled = (flags & kIgnoreCoscheduling) == 0;
    const unsigned unit = coscheduled ? sheet.alignment : 2;
    const unsigned least = coscheduled ? sheet.minimum : 2;
    const unsigned each = (std::max(minimum, least) + unit - 1) / unit;  // pieces
    const std::vector<SmSet> free = pieces(sheet, whole.sms, unit, coscheduled);
    const auto fit = static_cast<unsigned>(free.size()) / each;
    if (fit == 0) return kInvalidResourceConfiguration;
    *count = groups == nullptr ? fit : std::min(*count, fit);

    Resource part{.split = ++state_->serial, .sms = {}, .divisible = false, .alignment = unit};
    SmSet left = whole.sms;
    for (unsigned group = 0; group < *count; ++group) {
      part.sms.reset();
      for (unsigned piece = 0; piece < each; ++piece) part.sms |= free[group * each + piece];
      left &= ~part.sms;
      if (groups != nullptr) groups[group] = pack(*state_, part);
    }
    part.sms = left;
    if (!state_->options.remainder_merges) part.alignment = 0;
    if (remaining != nullptr) *remaining = pack(*state_, part);
    if (remaining != nullptr && left.none()) remaining->type = 0;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevSmResourceSplit(CUdevResource* groups, unsigned count,
                                          const CUdevResource* input, CUdevResource* remaining,
                                          unsigned flags,
                                          CU_DEV_SM_RESOURCE_GROUP_PARAMS* parameters) {
  return state_->call(Entry::cuDevSmResourceSplit, [&]() -> CUresult {
    if (input == nullptr || parameters == nullptr || count == 0 || flags != 0) return kInvalidValue;
    Resource whole;
    if (const CUresult code = unpack(*state_, *input, whole); code != 0) return code;
    if (!whole.divisible) return kInvalidResourceConfiguration;
    const std::uint64_t split = ++state_->serial;
    SmSet left = whole.sms;
    for (unsigned i = 0; i < count; ++i) {
      CU_DEV_SM_RESOURCE_GROUP_PARAMS& wanted = parameters[i];
      const unsigned given = wanted.coscheduledSmCount;
      const Grouping grouping{state_->sheet, left, wanted,
                              given != 0 ? given : state_->sheet.alignment};
      if (!grouping.valid(whole.sms.count())) return kInvalidValue;
      Resource part{.split = split, .sms = grouping.take(), .divisible = false};
      part.alignment = grouping.coscheduled;
      part.domain = grouping.bound() ? static_cast<int>(wanted.localityDomainId) : -1;
      const auto size = static_cast<unsigned>(part.sms.count());
      const bool enough = wanted.smCount == 0 || size == wanted.smCount;
      if (!enough || (groups != nullptr && size == 0)) return kInvalidResourceConfiguration;
      wanted.smCount = size;
      left &= ~part.sms;
      if (groups != nullptr) groups[i] = pack(*state_, part);
    }
    // A remainder has no structure: it does not go with groups.
    if (remaining != nullptr) *remaining = pack(*state_, {.split = split, .sms = left});
    if (remaining != nullptr && left.none()) remaining->type = 0;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevResourceGenerateDesc(CUdevResourceDesc* descriptor,
                                               CUdevResource* resources, unsigned count) {
  return state_->call(Entry::cuDevResourceGenerateDesc, [&]() -> CUresult {
    if (descriptor == nullptr || resources == nullptr || count == 0) return kInvalidValue;
    Resource merged;
    for (unsigned i = 0; i < count; ++i) {
      if (resources[i].type == kResourceWorkqueues) {
        if (const CUresult code = check_queues(*state_, resources[i]); code != 0) return code;
        continue;
      }
      Resource each;
      if (const CUresult code = unpack(*state_, resources[i], each); code != 0) return code;
      if (merged.sms.none()) {
        merged = each;
        merged.divisible = false;
        continue;
      }
      const bool twice = (merged.sms & each.sms).any();
      const bool alike = each.alignment == merged.alignment && each.domain == merged.domain;
      if (each.split != merged.split || twice || !alike) return kInvalidResourceConfiguration;
      merged.sms |= each.sms;
    }
    if (merged.sms.none()) return kInvalidResourceConfiguration;
    *descriptor = state_->handle<CUdevResourceDesc>();
    state_->descriptors[*descriptor] = merged;
    return kSuccess;
  });
}

}  // namespace st::fake
