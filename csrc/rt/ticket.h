// ticket.h: counts the ends of many requests whose caller needs no record of each.
//
// Thread safety: settle from any thread; wait and the counts from any thread.
//
// Invariants:
// 1. pending() falls from `requests` to 0 by what settle adds; done() never turns back.
// 2. The ticket lives until it is done, even when its caller has let go of it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "rt/request.h"
#include "rt/signal.h"

namespace st::rt {

class Ticket : public std::enable_shared_from_this<Ticket> {
 public:
  explicit Ticket(std::uint64_t requests) : pending_(requests) {}

  // open: call once, before the first request that names this ticket is submitted.
  void open() {
    if (pending() > 0) self_ = shared_from_this();
  }

  void settle(Outcome outcome, std::uint64_t requests) {
    counts_[static_cast<std::size_t>(outcome)].fetch_add(requests, std::memory_order_relaxed);
    // acq_rel: whoever sees 0 sees every count, and the last settler sees self_.
    if (pending_.fetch_sub(requests, std::memory_order_acq_rel) != requests) return;
    const std::shared_ptr<Ticket> keep = std::move(self_);
    done_.notify();
  }

  bool wait(TimeNs until) {
    return done_.await([this] { return pending() == 0; }, until);
  }
  std::uint64_t pending() const { return pending_.load(std::memory_order_acquire); }
  std::uint64_t count(Outcome outcome) const {
    return counts_[static_cast<std::size_t>(outcome)].load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> pending_;
  std::array<std::atomic<std::uint64_t>, kOutcomes> counts_{};
  std::shared_ptr<Ticket> self_;  // set while requests are pending
  Signal done_;
};

}  // namespace st::rt
