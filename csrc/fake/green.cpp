// green.cpp: green contexts, and which clusters fit their SMs.
#include <algorithm>

#include "fake/resources.h"

namespace st::fake {

// Whole groups lie in processing clusters of 16 SMs; the SMs left over are spread in pairs.
unsigned cluster_limit(const DataSheet& sheet, const SmSet& sms) {
  constexpr unsigned kCluster = 16;
  const unsigned whole = sheet.whole_groups * sheet.minimum;
  unsigned most = sms.any() ? std::min<unsigned>(2, static_cast<unsigned>(sms.count())) : 0;
  for (unsigned first = 0; first < whole; first += kCluster) {
    unsigned together = 0;
    for (unsigned sm = first; sm < std::min(first + kCluster, whole); ++sm) together += sms[sm];
    most = std::max(most, together);
  }
  return most;
}

CUresult FakeDriver::cuGreenCtxCreate(CUgreenCtx* context, CUdevResourceDesc descriptor,
                                      CUdevice device, unsigned flags) {
  return state_->call(Entry::cuGreenCtxCreate, [&]() -> CUresult {
    State& s = *state_;
    const auto found = s.descriptors.find(descriptor);
    if (context == nullptr || flags != kGreenDefaultStream) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    if (found == s.descriptors.end()) return kInvalidResourceConfiguration;
    if (found->second.sms.count() < s.options.smallest_context) {
      return kInvalidResourceConfiguration;
    }
    if (s.references++ == 0) s.open_primary();
    const auto green = std::make_shared<Green>();
    green->context = s.handle<CUcontext>();
    green->resource = found->second;
    green->resource.split = ++s.serial;
    green->resource.divisible = true;
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
    if (type != kResourceSm) return kInvalidResourceType;  // its work queues are not told
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
