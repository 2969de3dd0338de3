#include "cuda/partition.h"

#include <algorithm>
#include <stdexcept>

namespace st::cuda {
namespace {

constexpr int kQueuesVersion = 13010;  // the first with work queues as a resource
constexpr std::size_t kMostIdle = 16;  // contexts kept of sizes that are no rung of the ladder

std::string listed(const Units& units) {
  std::string text;
  for (const std::uint32_t unit : units) text += (text.empty() ? "" : ", ") + std::to_string(unit);
  return text;
}

// What says that these resources make no context, in whatever state the device is.
bool refuses(CUresult code) {
  return code == kInvalidValue || code == kNotSupported || code == kInvalidResourceType ||
         code == kInvalidResourceConfiguration;
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

SmBackend::SmBackend(std::shared_ptr<const Device> device, const Division& division)
    : device_(std::move(device)), why_unbounded_(device_->why_not_green()) {
  if (!why_unbounded_.empty()) {
    topology_.sms = {device_->facts().sms};
    topology_.domains = {-1};
    return;
  }
  device_->use();
  topology_ = split(*device_, division);
  ask_for_queues();
  settle_remainder();
  for (Units& rung : ladder(topology_)) ladder_.insert(std::move(rung));
}

// No driver says whether the remainder goes with groups: newer ones demand that what is merged lies
// alike, and a remainder need not.
void SmBackend::settle_remainder() {
  const auto count = static_cast<std::uint32_t>(topology_.sms.size());
  if (!topology_.remainder || count < 2) return;
  const bool merges = why_not({count - 2, count - 1}).empty();
  others_.clear();  // it was only asked about
  if (merges) return;
  topology_.units.pop_back();
  topology_.sms.pop_back();
  topology_.domains.pop_back();
  topology_.remainder = false;
}

// Lanes whose work goes through one hardware queue wait for each other, though their SMs are apart.
void SmBackend::ask_for_queues() {
  constexpr unsigned kStreams = 2;  // of a lane that have work at once: it launches, it warms up
  CUdevResource queues{};
  const CUresult code = device_->facts().driver_version < kQueuesVersion
                            ? kNotSupported
                            : device_->driver().cuDeviceGetDevResource(device_->handle(), &queues,
                                                                       kResourceWorkqueues);
  if (code != kSuccess) {
    why_shared_queues_ = "drivers have them from CUDA 13.1 on";
    device_->note(Entry::cuDeviceGetDevResource, code);
    return;
  }
  queues.wqConfig.sharingScope = kScopeBalanced;
  queues.wqConfig.wqConcurrencyLimit = kStreams;
  queues_ = queues;
}

std::vector<std::uint32_t> SmBackend::available() const {
  Units units(topology_.sms.size());
  for (std::uint32_t i = 0; i < units.size(); ++i) units[i] = i;
  return units;
}

Units SmBackend::checked(const std::vector<std::uint32_t>& wanted) const {
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
  return units;
}

std::unique_ptr<rt::Partition> SmBackend::open(const std::vector<std::uint32_t>& wanted,
                                               int priority) {
  Units units = checked(wanted);
  if (!why_unbounded_.empty()) {
    return std::make_unique<SmPartition>(device_, nullptr, units, device_->facts().sms, priority);
  }
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Green> green = green_for(units);
  const unsigned sms = green->sms();
  return std::make_unique<SmPartition>(device_, std::move(green), std::move(units), sms, priority);
}

std::string SmBackend::why_not(const std::vector<std::uint32_t>& wanted) {
  const Units units = checked(wanted);
  if (!why_unbounded_.empty()) return "";
  const std::lock_guard lock(mutex_);
  try {
    green_for(units);
    return "";
  } catch (const PartitionRefused&) {
    return refused_.at(units);
  }
}

std::map<Units, std::string> SmBackend::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

std::size_t SmBackend::contexts() const {
  const std::lock_guard lock(mutex_);
  return rungs_.size() + others_.size();
}

std::string SmBackend::why_shared_queues() const {
  const std::lock_guard lock(mutex_);
  return why_shared_queues_;
}

std::shared_ptr<const Green> SmBackend::green_for(const Units& units) {
  if (const auto rung = rungs_.find(units); rung != rungs_.end()) return rung->second;
  const auto held = std::find_if(others_.begin(), others_.end(),
                                 [&](const auto& other) { return other.first == units; });
  if (held != others_.end()) {
    others_.splice(others_.begin(), others_, held);
    return held->second;
  }
  std::shared_ptr<const Green> made = made_or_refused(units);
  if (ladder_.contains(units)) {
    rungs_.emplace(units, made);
  } else {
    others_.emplace_front(units, made);
    if (others_.size() > kMostIdle) evict_other();
  }
  return made;
}

std::shared_ptr<const Green> SmBackend::made_or_refused(const Units& units) {
  try {
    if (!refused_.contains(units)) return make(units);
  } catch (const DriverError& error) {
    if (error.code == kOutOfMemory && evict_idle()) return make(units);
    if (!refuses(error.code)) throw;
    refused_.emplace(units, error.what());
  }
  unsigned sms = 0;
  for (const std::uint32_t unit : units) sms += topology_.sms[unit];
  throw PartitionRefused("the driver makes no partition of units " + listed(units) + " (" +
                         std::to_string(sms) + " SMs): " + refused_.at(units) +
                         "; give the lane others");
}

std::shared_ptr<const Green> SmBackend::make(const Units& units) {
  device_->use();
  std::vector<CUdevResource> resources;
  for (const std::uint32_t unit : units) resources.push_back(topology_.units[unit]);
  CUgreenCtx handle = nullptr;
  if (queues_) {
    resources.push_back(*queues_);
    try {
      handle = create(resources);
    } catch (const DriverError& error) {
      if (!refuses(error.code)) throw;
    }
    resources.pop_back();
  }
  if (handle == nullptr) {
    handle = create(resources);
    if (queues_) why_shared_queues_ = "the driver refuses them beside SMs";
    queues_.reset();  // with them it fails, without them it does not
  }
  CUdevResource granted{};
  CUcontext context = nullptr;
  Driver& driver = device_->driver();
  const CUresult code = driver.cuGreenCtxGetDevResource(handle, &granted, kResourceSm);
  if (driver.has(Entry::cuCtxFromGreenCtx)) {
    device_->note(Entry::cuCtxFromGreenCtx, driver.cuCtxFromGreenCtx(&context, handle));
  }
  auto green = std::make_shared<const Green>(device_, handle, context, granted.sm.smCount);
  if (code != kSuccess) device_->fail(Entry::cuGreenCtxGetDevResource, code);
  return green;
}

CUgreenCtx SmBackend::create(std::vector<CUdevResource> resources) const {
  CUdevResourceDesc descriptor = nullptr;  // owned by the driver: it has no destroy call
  ST_ON(*device_, cuDevResourceGenerateDesc, &descriptor, resources.data(),
        static_cast<unsigned>(resources.size()));
  CUgreenCtx handle = nullptr;
  ST_ON(*device_, cuGreenCtxCreate, &handle, descriptor, device_->handle(), kGreenDefaultStream);
  return handle;
}

// The least recently used context of `others_` that no lane holds; false if all are held.
bool SmBackend::evict_other() {
  for (auto other = others_.rbegin(); other != others_.rend(); ++other) {
    if (other->second.use_count() > 1) continue;
    others_.erase(std::next(other).base());
    return true;
  }
  return false;
}

bool SmBackend::evict_idle() {
  if (evict_other()) return true;
  const auto rung = std::find_if(rungs_.begin(), rungs_.end(),
                                 [](const auto& held) { return held.second.use_count() == 1; });
  if (rung == rungs_.end()) return false;
  rungs_.erase(rung);
  return true;
}

}  // namespace st::cuda
