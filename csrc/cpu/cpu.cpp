#include "cpu/cpu.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>

namespace st::cpu {
namespace {

using Cores = std::vector<std::uint32_t>;

// A cpu_set_t wide enough for any machine the kernel reports.
class CoreMask {
 public:
  static constexpr int kMost = 8192;
  CoreMask() { CPU_ZERO_S(sizeof(bits_), bits_); }
  explicit CoreMask(const Cores& cores) : CoreMask() {
    for (std::uint32_t core : cores) CPU_SET_S(core, sizeof(bits_), bits_);
  }

  void read_thread() {
    if (sched_getaffinity(0, sizeof(bits_), bits_) != 0) fail("sched_getaffinity");
  }
  void apply_to_thread() const {
    if (sched_setaffinity(0, sizeof(bits_), bits_) != 0) fail("sched_setaffinity");
  }
  bool try_apply_to_thread() const { return sched_setaffinity(0, sizeof(bits_), bits_) == 0; }
  Cores cores() const {
    Cores found;
    for (std::uint32_t core = 0; core < kMost; ++core) {
      if (CPU_ISSET_S(core, sizeof(bits_), bits_)) found.push_back(core);
    }
    return found;
  }

 private:
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  cpu_set_t bits_[kMost / CPU_SETSIZE];
};

std::string listed(const Cores& cores) {
  std::string text;
  for (std::uint32_t core : cores) text += (text.empty() ? "" : ", ") + std::to_string(core);
  return text;
}

class CoreSet final : public rt::Partition {
 public:
  explicit CoreSet(Cores cores) : cores_(std::move(cores)) {}

  void enter() override {
    before_.read_thread();
    CoreMask(cores_).apply_to_thread();
    CoreMask now;
    now.read_thread();
    const std::lock_guard lock(mutex_);
    granted_ = now.cores();
  }
  // A mask that no longer applies (a hot-unplugged core) leaves the thread where it is.
  void leave() noexcept override { before_.try_apply_to_thread(); }

  std::uint32_t units() const override { return static_cast<std::uint32_t>(cores_.size()); }
  Cores granted() const override {
    const std::lock_guard lock(mutex_);
    return granted_;
  }

 private:
  const Cores cores_;
  CoreMask before_;
  mutable std::mutex mutex_;  // guards granted_
  Cores granted_;
};

}  // namespace

Cpu::Cpu() {
  CoreMask mask;
  mask.read_thread();
  allowed_ = mask.cores();
}

std::unique_ptr<rt::Partition> Cpu::open(const Cores& units, int priority) {
  if (priority != 0) throw std::invalid_argument("priority: partitions of cores have none");
  Cores cores = units;
  std::sort(cores.begin(), cores.end());
  if (cores.empty()) throw std::invalid_argument("cores: a lane needs at least one core");
  if (const auto twice = std::adjacent_find(cores.begin(), cores.end()); twice != cores.end()) {
    throw std::invalid_argument("cores: " + std::to_string(*twice) + " is named twice");
  }
  for (std::uint32_t core : cores) {
    if (std::binary_search(allowed_.begin(), allowed_.end(), core)) continue;
    throw std::invalid_argument("cores: " + std::to_string(core) +
                                " is not available; this process may use " + listed(allowed_));
  }
  return std::make_unique<CoreSet>(std::move(cores));
}

}  // namespace st::cpu
