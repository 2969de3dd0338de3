#include "cuda/partition.h"

#include <algorithm>
#include <stdexcept>

namespace st::cuda {
namespace {

constexpr std::size_t kMostIdle = 16;  // contexts kept of sizes that are no rung of the ladder

std::string listed(const Units& units) {
  std::string text;
  for (const std::uint32_t unit : units) text += (text.empty() ? "" : ", ") + std::to_string(unit);
  return text;
}

}  // namespace

SmPartition::SmPartition(std::shared_ptr<const Device> device, std::shared_ptr<const Green> green,
                         Units units, unsigned sms, int priority)
    : device_(std::move(device)),
      green_(std::move(green)),
      units_(std::move(units)),
      sms_(sms),
      stream_(std::make_shared<Stream>(device_, green_, priority)),
      capture_(std::make_shared<Stream>(device_, green_, priority)),
      warm_(std::make_shared<Stream>(device_, green_, priority)) {}

void SmPartition::enter() { device_->use(); }

SmBackend::SmBackend(std::shared_ptr<const Device> device, bool with_ladder)
    : device_(std::move(device)), why_unbounded_(device_->why_not_green()) {
  if (!why_unbounded_.empty()) {
    topology_.sms = {device_->facts().sms};
    return;
  }
  device_->use();
  topology_ = split(*device_);
  if (!with_ladder) return;
  const std::lock_guard lock(mutex_);
  for (const Units& rung : ladder(static_cast<std::uint32_t>(topology_.sms.size()))) {
    rungs_.emplace(rung, make(rung));
  }
}

std::vector<std::uint32_t> SmBackend::available() const {
  Units units(topology_.sms.size());
  for (std::uint32_t i = 0; i < units.size(); ++i) units[i] = i;
  return units;
}

std::unique_ptr<rt::Partition> SmBackend::open(const std::vector<std::uint32_t>& wanted,
                                               int priority) {
  Units units = wanted;
  std::sort(units.begin(), units.end());
  if (units.empty()) throw std::invalid_argument("units: a lane needs at least one");
  if (const auto twice = std::adjacent_find(units.begin(), units.end()); twice != units.end()) {
    throw std::invalid_argument("units: " + std::to_string(*twice) + " is named twice");
  }
  if (units.back() >= topology_.sms.size()) {
    throw std::invalid_argument("units: " + std::to_string(units.back()) +
                                " is not available; this device has " + listed(available()));
  }
  if (!why_unbounded_.empty()) {
    return std::make_unique<SmPartition>(device_, nullptr, units, device_->facts().sms, priority);
  }
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Green> green = green_for(units);
  const unsigned sms = green->sms();
  return std::make_unique<SmPartition>(device_, std::move(green), std::move(units), sms, priority);
}

std::size_t SmBackend::contexts() const {
  const std::lock_guard lock(mutex_);
  return rungs_.size() + others_.size();
}

std::shared_ptr<const Green> SmBackend::green_for(const Units& units) {
  if (const auto rung = rungs_.find(units); rung != rungs_.end()) return rung->second;
  const auto held = std::find_if(others_.begin(), others_.end(),
                                 [&](const auto& other) { return other.first == units; });
  if (held != others_.end()) {
    others_.splice(others_.begin(), others_, held);
    return held->second;
  }
  std::shared_ptr<const Green> made;
  try {
    made = make(units);
  } catch (const DriverError& error) {
    if (error.code != kOutOfMemory || !evict_idle()) throw;
    made = make(units);
  }
  others_.emplace_front(units, made);
  if (others_.size() > kMostIdle) evict_idle();
  return made;
}

std::shared_ptr<const Green> SmBackend::make(const Units& units) {
  device_->use();
  std::vector<CUdevResource> resources;
  for (const std::uint32_t unit : units) resources.push_back(topology_.units[unit]);
  CUdevResourceDesc descriptor = nullptr;  // owned by the driver: it has no destroy call
  ST_ON(*device_, cuDevResourceGenerateDesc, &descriptor, resources.data(),
        static_cast<unsigned>(resources.size()));
  CUgreenCtx handle = nullptr;
  ST_ON(*device_, cuGreenCtxCreate, &handle, descriptor, device_->handle(), kGreenDefaultStream);
  CUdevResource granted{};
  const CUresult code = device_->driver().cuGreenCtxGetDevResource(handle, &granted, kResourceSm);
  auto green = std::make_shared<const Green>(device_, handle, granted.sm.smCount);
  if (code != kSuccess) device_->fail(Entry::cuGreenCtxGetDevResource, code);
  return green;
}

// The least recently used context that no lane holds; false if all are held.
bool SmBackend::evict_idle() {
  for (auto other = others_.rbegin(); other != others_.rend(); ++other) {
    if (other->second.use_count() > 1) continue;
    others_.erase(std::next(other).base());
    return true;
  }
  return false;
}

}  // namespace st::cuda
