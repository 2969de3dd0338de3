// device.cpp: the device, its primary context, and what tests ask of the driver.
#include <algorithm>
#include <cstring>
#include <string>

#include "fake/state.h"

namespace st::fake {

FakeDriver::FakeDriver(FakeOptions options) : state_(std::make_unique<State>(std::move(options))) {}
FakeDriver::~FakeDriver() = default;

bool FakeDriver::has(Entry entry) const { return !lacking(entry, state_->options.driver_version); }

CUresult FakeDriver::cuInit(unsigned flags) {
  return state_->call(Entry::cuInit, [&]() -> CUresult {
    if (flags != 0) return kInvalidValue;
    state_->initialized = true;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDriverGetVersion(int* version) {
  return state_->call(Entry::cuDriverGetVersion, [&]() -> CUresult {
    if (version == nullptr) return kInvalidValue;
    *version = state_->options.driver_version;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGetErrorName(CUresult code, const char** name) {
  return state_->call(Entry::cuGetErrorName, [&]() -> CUresult {
    *name = error_name(code);
    return *name == nullptr ? kInvalidValue : kSuccess;
  });
}

CUresult FakeDriver::cuGetErrorString(CUresult code, const char** text) {
  return state_->call(Entry::cuGetErrorString, [&]() -> CUresult {
    *text = error_text(code);
    return *text == nullptr ? kInvalidValue : kSuccess;
  });
}

CUresult FakeDriver::cuDeviceGetCount(int* count) {
  return state_->call(Entry::cuDeviceGetCount, [&]() -> CUresult {
    if (count == nullptr) return kInvalidValue;
    *count = 1;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDeviceGet(CUdevice* device, int ordinal) {
  return state_->call(Entry::cuDeviceGet, [&]() -> CUresult {
    if (device == nullptr) return kInvalidValue;
    if (ordinal != 0) return kInvalidDevice;
    *device = 0;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDeviceGetName(char* name, int length, CUdevice device) {
  return state_->call(Entry::cuDeviceGetName, [&]() -> CUresult {
    if (name == nullptr || length <= 0) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    std::strncpy(name, state_->sheet.name.data(), static_cast<std::size_t>(length));
    name[length - 1] = '\0';
    return kSuccess;
  });
}

CUresult FakeDriver::cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return state_->call(Entry::cuDeviceGetUuid, [&]() -> CUresult {
    if (uuid == nullptr) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    const std::string text = ("fake:" + std::string(state_->sheet.key)).substr(0, 16);
    *uuid = {};
    std::memcpy(uuid->bytes, text.data(), text.size());
    return kSuccess;
  });
}

CUresult FakeDriver::cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  return state_->call(Entry::cuDeviceGetAttribute, [&]() -> CUresult {
    const DataSheet& sheet = state_->sheet;
    if (value == nullptr) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    switch (attribute) {
      case kAttributeMultiprocessors:
        return *value = static_cast<int>(sheet.sms), kSuccess;
      case kAttributeClockKHz:
        return *value = sheet.clock_khz, kSuccess;
      case kAttributeL2Bytes:
        return *value = static_cast<int>(sheet.l2_bytes), kSuccess;
      case kAttributeCapabilityMajor:
        return *value = sheet.major, kSuccess;
      case kAttributeCapabilityMinor:
        return *value = sheet.minor, kSuccess;
      case kAttributeVirtualMemory:
        return *value = 1, kSuccess;
      case kAttributeMps:
        return *value = 0, kSuccess;
      case kAttributeLocalityDomains:
        if (state_->options.driver_version < kSplitVersion) return kInvalidValue;
        return *value = static_cast<int>(sheet.domains), kSuccess;
      case kAttributeLocalityDomainSms:
        if (state_->options.driver_version < kSplitVersion) return kInvalidValue;
        return *value = static_cast<int>(sheet.whole_groups / sheet.domains * sheet.minimum),
               kSuccess;
      default:
        return kInvalidValue;
    }
  });
}

CUresult FakeDriver::cuDeviceTotalMem(std::size_t* bytes, CUdevice device) {
  return state_->call(Entry::cuDeviceTotalMem, [&]() -> CUresult {
    if (bytes == nullptr) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    *bytes = state_->memory->total_bytes();
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return state_->call(Entry::cuDevicePrimaryCtxRetain, [&]() -> CUresult {
    if (context == nullptr) return kInvalidValue;
    if (device != 0) return kInvalidDevice;
    if (state_->references++ == 0) state_->open_primary();
    *context = state_->primary;
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevicePrimaryCtxRelease(CUdevice device) {
  return state_->call(Entry::cuDevicePrimaryCtxRelease, [&]() -> CUresult {
    if (device != 0) return kInvalidDevice;
    if (state_->references == 0) return kInvalidContext;
    if (--state_->references == 0) state_->close_primary();
    return kSuccess;
  });
}

CUresult FakeDriver::cuDevicePrimaryCtxReset(CUdevice device) {
  return state_->call(Entry::cuDevicePrimaryCtxReset, [&]() -> CUresult {
    if (device != 0) return kInvalidDevice;
    state_->close_primary();
    return kSuccess;
  });
}

CUresult FakeDriver::cuCtxSetCurrent(CUcontext context) {
  return state_->call(Entry::cuCtxSetCurrent, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Green> green;
    if (const auto found = s.green_contexts.find(context); found != s.green_contexts.end()) {
      s.greens.find(found->second, green);
      // It may be current to one thread only; what the real driver then does is not defined.
      if (green->current_in != 0 && green->current_in != this_thread()) return kInvalidContext;
    } else if (context != nullptr && (context != s.primary || s.references == 0)) {
      return kInvalidContext;
    }
    for (const auto& [handle, other] : s.greens.all()) {
      if (other->current_in == this_thread()) other->current_in = 0;
    }
    if (green != nullptr) green->current_in = this_thread();
    s.set_current(context);
    return kSuccess;
  });
}

CUresult FakeDriver::cuCtxGetCurrent(CUcontext* context) {
  return state_->call(Entry::cuCtxGetCurrent, [&]() -> CUresult {
    if (context == nullptr) return kInvalidValue;
    *context = state_->current();
    return kSuccess;
  });
}

CUresult FakeDriver::cuCtxSynchronize() {
  return state_->call(Entry::cuCtxSynchronize, [&]() -> CUresult {
    // That of the primary context includes its green contexts, and so does this for each of them.
    return state_->wait(state_->engine.fence(state_->now_ns));
  });
}

CUresult FakeDriver::cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return state_->call(Entry::cuCtxGetStreamPriorityRange, [&]() -> CUresult {
    if (least != nullptr) *least = kLeastPriority;
    if (greatest != nullptr) *greatest = kGreatestPriority;
    return kSuccess;
  });
}

const DataSheet& FakeDriver::sheet() const { return state_->sheet; }

TimeNs FakeDriver::now_ns() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->now_ns;
}

TimeNs FakeDriver::busy_sm_ns() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->engine.busy_sm_ns();
}

Live FakeDriver::live() const {
  const std::scoped_lock lock(state_->mutex);
  const State& s = *state_;
  return {.primary_references = s.references,
          .green_contexts = static_cast<unsigned>(s.greens.count()),
          .streams = s.streams.count(),
          .events = s.events.count(),
          .graphs = s.graphs.count(),
          .execs = s.execs.count(),
          .modules = s.modules.count(),
          .allocations = s.memory->allocations(),
          .host_allocations = s.memory->host_allocations(),
          .reservations = s.memory->reservations(),
          .mappings = s.memory->mappings(),
          .physical = s.memory->physical()};
}

std::vector<Called> FakeDriver::log() const {
  const std::scoped_lock lock(state_->mutex);
  std::vector<Called> in_order = state_->log;
  if (state_->logged > kLogged) {
    const auto oldest = static_cast<std::ptrdiff_t>(state_->logged % kLogged);
    std::rotate(in_order.begin(), in_order.begin() + oldest, in_order.end());
  }
  return in_order;
}

SmSet FakeDriver::sms_of(CUstream stream) const {
  const std::scoped_lock lock(state_->mutex);
  std::shared_ptr<Stream> found;
  if (state_->find(stream, found) != kSuccess || found == nullptr) return {};
  return found->sms;
}

SmSet FakeDriver::sms_of(CUgraphNode node) const {
  const std::scoped_lock lock(state_->mutex);
  const Node* found = state_->find(node);
  return found == nullptr ? SmSet{} : found->operation.sms;
}

void FakeDriver::poison(CUresult code) {
  const std::scoped_lock lock(state_->mutex);
  state_->engine.poison(code);
}

void FakeDriver::finish() {
  const std::scoped_lock lock(state_->mutex);
  state_->wait(state_->engine.fence(state_->now_ns));
}

}  // namespace st::fake
