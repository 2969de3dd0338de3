// green.cpp: SM resources, their splitting, and green contexts.
#include <algorithm>
#include <cstring>

#include "fake/state.h"

namespace st::fake {
namespace {

constexpr std::uint64_t kMagic = 0x7370616365746d65;

struct Opaque {  // what the fake keeps in a CUdevResource
  std::uint64_t magic;
  Resource resource;
};
static_assert(sizeof(Opaque) <= sizeof(CUdevResource::opaque));

CUdevResource pack(const State& state, const Resource& resource) {
  CUdevResource packed{};
  packed.type = kResourceSm;
  const Opaque opaque{kMagic ^ state.generation, resource};
  std::memcpy(packed.opaque, &opaque, sizeof opaque);
  packed.sm.smCount = static_cast<unsigned>(resource.sms.count());
  const bool told = state.options.driver_version >= 13000;
  packed.sm.minSmPartitionSize = told ? state.facts.minimum : 0;
  packed.sm.smCoscheduledAlignment = told ? state.facts.alignment : 0;
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

// The smallest pieces of `sms` that a split puts together, lowest first.
std::vector<SmSet> pieces(const Facts& facts, const SmSet& sms, bool coscheduled) {
  const unsigned size = coscheduled ? facts.alignment : 2;
  const unsigned end = coscheduled ? facts.whole_groups * facts.minimum : facts.sms;
  std::vector<SmSet> found;
  for (unsigned first = 0; first + size <= end; first += size) {
    SmSet piece;
    for (unsigned sm = first; sm < first + size; ++sm) piece.set(sm);
    if ((piece & sms) == piece) found.push_back(piece);
  }
  return found;
}

}  // namespace

// Whole groups lie in processing clusters of 16 SMs; the SMs left over are spread in pairs.
unsigned cluster_limit(const Facts& facts, const SmSet& sms) {
  constexpr unsigned kCluster = 16;
  const unsigned whole = facts.whole_groups * facts.minimum;
  unsigned most = sms.any() ? std::min<unsigned>(2, static_cast<unsigned>(sms.count())) : 0;
  for (unsigned first = 0; first < whole; first += kCluster) {
    unsigned together = 0;
    for (unsigned sm = first; sm < std::min(first + kCluster, whole); ++sm) together += sms[sm];
    most = std::max(most, together);
  }
  return most;
}

CUresult FakeDriver::cuDeviceGetDevResource(CUdevice device, CUdevResource* resource, int type) {
  return state_->call(Entry::cuDeviceGetDevResource, [&]() -> CUresult {
    if (device != 0) return kInvalidDevice;
    if (resource == nullptr) return kInvalidValue;
    if (type != kResourceSm) return kInvalidResourceType;
    Resource all{.split = ++state_->serial, .sms = {}, .divisible = true};
    for (unsigned sm = 0; sm < state_->facts.sms; ++sm) all.sms.set(sm);
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
    const Facts& facts = state_->facts;
    if (count == nullptr || input == nullptr || (flags & ~kAllFlags) != 0) return kInvalidValue;
    Resource whole;
    if (const CUresult code = unpack(*state_, *input, whole); code != 0) return code;
    if (!whole.divisible) return kInvalidResourceConfiguration;
    if (minimum > whole.sms.count() || (groups != nullptr && *count == 0)) return kInvalidValue;

    const bool coscheduled = (flags & kIgnoreCoscheduling) == 0;
    const unsigned unit = coscheduled ? facts.alignment : 2;
    const unsigned least = coscheduled ? facts.minimum : 2;
    const unsigned each = (std::max(minimum, least) + unit - 1) / unit;  // pieces
    const std::vector<SmSet> free = pieces(facts, whole.sms, coscheduled);
    const auto fit = static_cast<unsigned>(free.size()) / each;
    if (fit == 0) return kInvalidResourceConfiguration;
    *count = groups == nullptr ? fit : std::min(*count, fit);

    Resource part{.split = ++state_->serial, .sms = {}, .divisible = false};
    SmSet left = whole.sms;
    for (unsigned group = 0; group < *count; ++group) {
      part.sms.reset();
      for (unsigned piece = 0; piece < each; ++piece) part.sms |= free[group * each + piece];
      left &= ~part.sms;
      if (groups != nullptr) groups[group] = pack(*state_, part);
    }
    part.sms = left;
    if (remaining != nullptr) *remaining = pack(*state_, part);
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
      Resource each;
      if (const CUresult code = unpack(*state_, resources[i], each); code != 0) return code;
      if (i == 0) merged = {.split = each.split, .sms = {}, .divisible = false};
      const bool twice = (merged.sms & each.sms).any();
      if (each.split != merged.split || twice) return kInvalidResourceConfiguration;
      merged.sms |= each.sms;
    }
    *descriptor = state_->handle<CUdevResourceDesc>();
    state_->descriptors[*descriptor] = merged;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGreenCtxCreate(CUgreenCtx* context, CUdevResourceDesc descriptor,
                                      CUdevice device, unsigned flags) {
  return state_->call(Entry::cuGreenCtxCreate, [&]() -> CUresult {
    State& s = *state_;
    const auto found = s.descriptors.find(descriptor);
    if (context == nullptr || flags != kGreenDefaultStream) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    if (found == s.descriptors.end()) return kInvalidResourceConfiguration;
    if (s.references++ == 0) s.open_primary();
    const auto green = std::make_shared<Green>();
    green->context = s.handle<CUcontext>();
    green->resource = {.split = ++s.serial, .sms = found->second.sms, .divisible = true};
    *context = s.handle<CUgreenCtx>();
    s.greens.add(*context, green);
    s.green_contexts[green->context] = *context;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGreenCtxDestroy(CUgreenCtx context) {
  return state_->call(Entry::cuGreenCtxDestroy, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Green> found;
    if (const CUresult code = s.greens.find(context, found); code != 0) return code;
    std::vector<CUstream> left;
    for (const auto& [handle, stream] : s.streams.all()) {
      if (stream->green != context) continue;
      s.leave(*stream);
      left.push_back(handle);
    }
    for (const CUstream stream : left) s.streams.orphan(stream, true);
    s.green_contexts.erase(found->context);
    s.greens.orphan(context, false);
    if (--s.references == 0) s.close_primary();
    return kSuccess;
  });
}

CUresult FakeDriver::cuCtxFromGreenCtx(CUcontext* context, CUgreenCtx green) {
  return state_->call(Entry::cuCtxFromGreenCtx, [&]() -> CUresult {
    std::shared_ptr<Green> found;
    if (const CUresult code = state_->greens.find(green, found); code != 0) return code;
    if (context == nullptr) return kInvalidValue;
    *context = found->context;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGreenCtxGetDevResource(CUgreenCtx context, CUdevResource* resource,
                                              int type) {
  return state_->call(Entry::cuGreenCtxGetDevResource, [&]() -> CUresult {
    std::shared_ptr<Green> found;
    if (const CUresult code = state_->greens.find(context, found); code != 0) return code;
    if (resource == nullptr) return kInvalidValue;
    if (type != kResourceSm) return kInvalidResourceType;
    *resource = pack(*state_, found->resource);
    return kSuccess;
  });
}

CUresult FakeDriver::cuGreenCtxStreamCreate(CUstream* stream, CUgreenCtx context, unsigned flags,
                                            int priority) {
  return state_->call(Entry::cuGreenCtxStreamCreate, [&]() -> CUresult {
    std::shared_ptr<Green> found;
    if (const CUresult code = state_->greens.find(context, found); code != 0) return code;
    if (stream == nullptr || flags != kStreamNonBlocking) return kInvalidValue;
    *stream = state_->add_stream(found->context, context, found->resource.sms, false, priority);
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamGetGreenCtx(CUstream stream, CUgreenCtx* context) {
  return state_->call(Entry::cuStreamGetGreenCtx, [&]() -> CUresult {
    std::shared_ptr<Stream> found;
    if (const CUresult code = state_->find(stream, found); code != 0) return code;
    if (context == nullptr) return kInvalidValue;
    *context = found->green;
    return kSuccess;
  });
}

}  // namespace st::fake
