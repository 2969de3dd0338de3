#include "cuda/memory.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace st::cuda {
namespace {

CUmemAllocationProp on(const Device& device) {
  CUmemAllocationProp property{};
  property.type = kMemPinned;
  property.location = {kLocationDevice, device.ordinal()};
  return property;
}

}  // namespace

DeviceMemory::DeviceMemory(std::shared_ptr<const Device> device, std::size_t bytes)
    : Memory(true, device->ordinal()), device_(std::move(device)) {
  bytes_ = bytes;
  device_->use();
  if (bytes > 0) ST_ON(*device_, cuMemAlloc, &address_, bytes);
}

DeviceMemory::~DeviceMemory() {
  device_->quietly(Entry::cuMemFree, [&](Driver& driver) {
    return address_ == 0 ? kSuccess : driver.cuMemFree(address_);
  });
}

PinnedMemory::PinnedMemory(std::shared_ptr<const Device> device, std::size_t bytes)
    : Memory(false, device->ordinal()), device_(std::move(device)) {
  bytes_ = bytes;
  device_->use();
  void* pointer = nullptr;
  if (bytes > 0) ST_ON(*device_, cuMemHostAlloc, &pointer, bytes, 0);
  address_ = reinterpret_cast<std::uint64_t>(pointer);
}

PinnedMemory::~PinnedMemory() {
  device_->quietly(Entry::cuMemFreeHost, [&](Driver& driver) {
    return address_ == 0 ? kSuccess : driver.cuMemFreeHost(data());
  });
}

Arena::Arena(std::shared_ptr<const Device> device, std::size_t row_bytes, std::size_t rows,
             std::size_t least)
    : Memory(true, device->ordinal()), device_(std::move(device)), rows_(rows) {
  if (row_bytes == 0 || rows == 0) throw std::invalid_argument("arena: needs rows with bytes");
  if (const std::string reason = device_->why_not_virtual(); !reason.empty()) {
    throw std::invalid_argument("arena: " + reason);
  }
  device_->use();
  const CUmemAllocationProp property = on(*device_);
  std::size_t step = 0;
  ST_ON(*device_, cuMemGetAllocationGranularity, &step, &property, kGranularityMinimum);
  row_bytes_ = (row_bytes + step - 1) / step * step;
  reserve(std::clamp<std::size_t>(least, 1, rows));
}

// How much address space there is, no driver says; large models have rows of gigabytes.
void Arena::reserve(std::size_t least) {
  while (true) {
    bytes_ = row_bytes_ * rows_;
    const CUresult code = device_->driver().cuMemAddressReserve(&address_, bytes_, 0, 0, 0);
    if (code == kSuccess) return;
    if (rows_ == least || sticky(code)) device_->fail(Entry::cuMemAddressReserve, code);
    rows_ = std::max(rows_ / 2, least);
  }
}

Arena::~Arena() {
  for (const auto& [row, handle] : mapped_) release(row, handle);
  device_->quietly(Entry::cuMemAddressFree,
                   [&](Driver& driver) { return driver.cuMemAddressFree(address_, bytes_); });
}

std::size_t Arena::mapped_bytes() const {
  const std::lock_guard lock(mutex_);
  return mapped_.size() * row_bytes_;
}

void Arena::map(std::size_t row) {
  const std::lock_guard lock(mutex_);
  if (row >= rows_ || mapped_.contains(row)) {
    throw std::invalid_argument("row: " + std::to_string(row) + " is mapped or not in the arena");
  }
  device_->use();
  Driver& driver = device_->driver();
  const CUmemAllocationProp property = on(*device_);
  CUmemGenericAllocationHandle handle = 0;
  ST_ON(*device_, cuMemCreate, &handle, row_bytes_, &property, 0);
  if (const CUresult code = driver.cuMemMap(at(row), row_bytes_, 0, handle, 0); code != kSuccess) {
    driver.cuMemRelease(handle);
    device_->fail(Entry::cuMemMap, code);
  }
  const CUmemAccessDesc access{{kLocationDevice, device_->ordinal()}, kAccessReadWrite};
  const CUresult code = driver.cuMemSetAccess(at(row), row_bytes_, &access, 1);
  if (code != kSuccess) {
    release(row, handle);
    device_->fail(Entry::cuMemSetAccess, code);
  }
  mapped_.emplace(row, handle);
}

void Arena::unmap(std::size_t row) {
  const std::lock_guard lock(mutex_);
  const auto found = mapped_.find(row);
  if (found == mapped_.end()) {
    throw std::invalid_argument("row: " + std::to_string(row) + " is not mapped");
  }
  device_->use();
  ST_ON(*device_, cuMemUnmap, at(row), row_bytes_);
  const CUmemGenericAllocationHandle handle = found->second;
  mapped_.erase(found);
  ST_ON(*device_, cuMemRelease, handle);
}

void Arena::release(std::size_t row, CUmemGenericAllocationHandle handle) {
  device_->quietly(Entry::cuMemUnmap, [&](Driver& driver) {
    const CUresult code = driver.cuMemUnmap(at(row), row_bytes_);
    const CUresult released = driver.cuMemRelease(handle);
    return code != kSuccess ? code : released;
  });
}

}  // namespace st::cuda
