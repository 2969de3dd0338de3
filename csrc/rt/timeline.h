// timeline.h: what happened, for whoever wants to draw or replay it.
//
// Thread safety: add by the baton's holder; drain from any thread, one after the other.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "rt/request.h"
#include "rt/ring.h"

namespace st::rt {

// A launch that finished, or (lane == kNone) a request that ended without one.
struct Happening {
  TimeNs start_ns = 0;  // of a drop: the request's arrival
  TimeNs finish_ns = 0;
  std::uint64_t id = 0;  // launch; of a drop: the request's token
  LaneId lane = kNone;
  FamilyId family = kNone;
  TenantId tenant = kNone;  // of a drop, or of the launch's first request
  std::uint32_t bucket = 0;
  std::uint32_t samples = 0;
  std::uint32_t requests = 0;
  std::uint32_t tenants = 0;  // distinct
  Outcome outcome = Outcome::kOk;
};

class Timeline {
 public:
  explicit Timeline(std::size_t capacity) : on_(capacity > 0), ring_(capacity) {}

  bool on() const { return on_; }
  void add(const Happening& happening) {
    if (!on_ || ring_.try_push(happening)) return;
    lost_.fetch_add(1, std::memory_order_relaxed);
  }
  void drain(std::vector<Happening>& out) {
    const std::lock_guard one_reader(reading_);
    Happening happening;
    while (ring_.try_pop(happening)) out.push_back(happening);
  }
  std::uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  const bool on_;
  SpscRing<Happening> ring_;
  std::mutex reading_;
  std::atomic<std::uint64_t> lost_{0};
};

}  // namespace st::rt
