#include "cuda/device.h"

namespace st::cuda {
namespace {

constexpr int kGreenVersion = 12050;  // the first with cuGreenCtxStreamCreate

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

std::shared_ptr<Device> Device::open(std::shared_ptr<Driver> driver, int ordinal) {
  std::shared_ptr<Device> device(new Device(std::move(driver), ordinal));
  Driver& d = *device->driver_;
  initialize(d);
  int count = 0;
  ST_CU(d, cuDeviceGetCount, &count);
  if (ordinal < 0 || ordinal >= count) {
    throw std::invalid_argument("the driver sees " + std::to_string(count) +
                                (count == 1 ? " device" : " devices"));
  }
  ST_CU(d, cuDeviceGet, &device->handle_, ordinal);
  ST_CU(d, cuDevicePrimaryCtxRetain, &device->primary_, device->handle_);
  device->use();
  device->read_facts();
  return device;
}

Device::~Device() {
  if (primary_ == nullptr) return;
  unuse();
  driver_->cuDevicePrimaryCtxRelease(handle_);
}

void Device::read_facts() {
  char name[128] = {};
  ST_ON(*this, cuDeviceGetName, name, sizeof(name) - 1, handle_);
  facts_.name = name;
  ST_ON(*this, cuDriverGetVersion, &facts_.driver_version);
  facts_.major = attribute(kAttributeCapabilityMajor);
  facts_.minor = attribute(kAttributeCapabilityMinor);
  facts_.sms = static_cast<unsigned>(attribute(kAttributeMultiprocessors));
  facts_.l2_bytes = static_cast<std::uint64_t>(attribute(kAttributeL2Bytes));
  facts_.clock_khz = attribute(kAttributeClockKHz);
  std::size_t bytes = 0;
  ST_ON(*this, cuDeviceTotalMem, &bytes, handle_);
  facts_.memory_bytes = bytes;
  ST_ON(*this, cuCtxGetStreamPriorityRange, &facts_.least_priority, &facts_.greatest_priority);
  int mps = 0;  // an attribute that older drivers do not know
  facts_.mps = driver_->cuDeviceGetAttribute(&mps, kAttributeMps, handle_) == kSuccess && mps != 0;
}

int Device::attribute(int which) const {
  int value = 0;
  ST_ON(*this, cuDeviceGetAttribute, &value, which, handle_);
  return value;
}

std::string Device::why_not_green() const {
  for (const Entry entry :
       {Entry::cuDeviceGetDevResource, Entry::cuDevSmResourceSplitByCount,
        Entry::cuDevResourceGenerateDesc, Entry::cuGreenCtxCreate, Entry::cuGreenCtxDestroy,
        Entry::cuGreenCtxGetDevResource, Entry::cuGreenCtxStreamCreate}) {
    if (driver_->has(entry)) continue;
    return "the driver (CUDA " + version_text(facts_.driver_version) + ") has no " +
           std::string(name_of(entry)) + "; update it to CUDA " + version_text(kGreenVersion) +
           " or newer";
  }
  return "";
}

std::string Device::why_not_virtual() const {
  for (const Entry entry : {Entry::cuMemAddressReserve, Entry::cuMemCreate, Entry::cuMemMap,
                            Entry::cuMemSetAccess, Entry::cuMemUnmap, Entry::cuMemRelease}) {
    if (!driver_->has(entry)) return "the driver has no " + std::string(name_of(entry));
  }
  return attribute(kAttributeVirtualMemory) != 0 ? "" : "the device has no virtual memory";
}

std::vector<Feature> Device::features() const {
  return {{"green contexts", why_not_green()},
          {"virtual memory", why_not_virtual()},
          {"MPS client", facts_.mps ? "" : "no MPS daemon serves this process"}};
}

void Device::use() const { ST_ON(*this, cuCtxSetCurrent, primary_); }

void Device::unuse() const noexcept {
  CUcontext current = nullptr;
  if (driver_->cuCtxGetCurrent(&current) == kSuccess && current == primary_) {
    driver_->cuCtxSetCurrent(nullptr);
  }
}

std::pair<std::uint64_t, std::uint64_t> Device::memory() const {
  use();
  std::size_t free = 0;
  std::size_t total = 0;
  ST_ON(*this, cuMemGetInfo, &free, &total);
  return {free, total};
}

void Device::synchronize() const {
  use();
  ST_ON(*this, cuCtxSynchronize);
}

void Device::fail(Entry call, CUresult code) const {
  note(call, code);
  raise(*driver_, call, code);
}

void Device::note(Entry call, CUresult code) const {
  std::int32_t well = 0;
  if (sticky(code)) lost_.compare_exchange_strong(well, packed(call, code));
}

std::optional<std::pair<Entry, CUresult>> Device::lost() const {
  const std::int32_t lost = lost_.load();
  if (lost == 0) return std::nullopt;
  return std::pair{call_of(lost), code_of(lost)};
}

}  // namespace st::cuda
