#include "fake/faulty.h"

#include <algorithm>

#include "fake/needs.h"

namespace st::fake {
namespace {

bool describes(Entry entry) {
  return entry == Entry::cuGetErrorName || entry == Entry::cuGetErrorString;
}

}  // namespace

void FaultyDriver::fail(const Fault& fault) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back(fault);
}

void FaultyDriver::before(std::function<void(Entry)> hook) {
  const std::scoped_lock lock(mutex_);
  hook_ = hook ? std::make_shared<const std::function<void(Entry)>>(std::move(hook)) : nullptr;
}

void FaultyDriver::clear() {
  const std::scoped_lock lock(mutex_);
  faults_.clear();
  failed_.clear();
  counts_.fill(0);
  total_ = 0;
  lost_ = kSuccess;
}

std::uint64_t FaultyDriver::calls() const {
  const std::scoped_lock lock(mutex_);
  return total_;
}

std::uint64_t FaultyDriver::calls(Entry entry) const {
  const std::scoped_lock lock(mutex_);
  return counts_[static_cast<std::size_t>(entry)];
}

std::vector<Entry> FaultyDriver::failed() const {
  const std::scoped_lock lock(mutex_);
  return failed_;
}

FaultyDriver::Verdict FaultyDriver::judge(Entry entry) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t of_entry = ++counts_[static_cast<std::size_t>(entry)];
  if (!describes(entry)) ++total_;
  if (lost_ != kSuccess && touches_context(entry)) return {lost_, destroys(entry)};
  const auto fault = std::find_if(faults_.begin(), faults_.end(), [&](const Fault& each) {
    if (each.entry) return *each.entry == entry && each.nth == of_entry;
    return !describes(entry) && each.nth == total_;
  });
  if (fault == faults_.end()) return {kSuccess, true};
  failed_.push_back(entry);
  if (fault->sticky) lost_ = fault->code;
  return {fault->code, false};
}

void FaultyDriver::settle(Entry entry) {
  const bool retain = entry == Entry::cuDevicePrimaryCtxRetain;
  const bool release = entry == Entry::cuDevicePrimaryCtxRelease;
  const bool reset = entry == Entry::cuDevicePrimaryCtxReset;
  if (!retain && !release && !reset) return;
  const std::scoped_lock lock(mutex_);
  if (retain) ++references_;
  if (release && references_ > 0) --references_;
  if (reset) references_ = 0;
  if (references_ == 0) lost_ = kSuccess;
}

template <typename Inner>
CUresult FaultyDriver::call(Entry entry, Inner inner) {
  std::shared_ptr<const std::function<void(Entry)>> hook;
  {
    const std::scoped_lock lock(mutex_);
    hook = hook_;
  }
  if (hook != nullptr) (*hook)(entry);
  const Verdict verdict = judge(entry);
  if (!verdict.passes) return verdict.code;
  const CUresult code = inner();
  if (code == kSuccess) settle(entry);
  return verdict.code != kSuccess ? verdict.code : code;
}

#define ST_X(name, version, need, declaration, arguments)              \
  CUresult FaultyDriver::name declaration {                            \
    return call(Entry::name, [&] { return driver_->name arguments; }); \
  }
ST_CUDA_ENTRIES(ST_X)
#undef ST_X

}  // namespace st::fake
