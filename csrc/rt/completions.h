// completions.h: ended requests on their way to the one thread that tells their callers.
//
// Thread safety: push and announce by the baton's holder; drain from any thread, one after the
// other; close from any thread.
//
// Invariants:
// 1. A request's place in the pool stays taken until drain has copied its record, and there is
//    room for every place: a slow reader slows submitters down, nothing is lost.
#pragma once

#include <mutex>
#include <vector>

#include "rt/pool.h"
#include "rt/request.h"
#include "rt/ring.h"
#include "rt/signal.h"

namespace st::rt {

class Completions {
 public:
  explicit Completions(Pool<InFlight>& pool) : pool_(pool), ended_(pool.capacity()) {}

  void push(std::uint32_t place) {
    ended_.try_push(place);
    news_ = true;
  }
  // announce: wakes the reader if anything was pushed since the last call.
  void announce() {
    if (!news_) return;
    news_ = false;
    arrived_.notify();
  }

  // drain: appends up to `most` records, waiting for the first until `until`. False once closed
  // and empty.
  bool drain(std::vector<Completion>& out, std::size_t most, TimeNs until) {
    const std::lock_guard one_reader(reading_);
    const auto ready = [this] {
      return ended_.size() > 0 || closed_.load(std::memory_order_acquire);
    };
    if (!arrived_.await(ready, until)) return true;
    const bool closed = closed_.load(std::memory_order_acquire);
    std::uint32_t place = 0;
    std::size_t read = 0;
    for (; read < most && ended_.try_pop(place); ++read) {
      out.push_back(pool_[place].end);
      pool_.give(place);
    }
    return read > 0 || !closed;
  }

  void close() {
    closed_.store(true, std::memory_order_release);  // publishes that no push follows
    arrived_.notify();
  }

 private:
  Pool<InFlight>& pool_;
  SpscRing<std::uint32_t> ended_;
  std::mutex reading_;
  std::atomic<bool> closed_{false};
  bool news_ = false;
  Signal arrived_;
};

}  // namespace st::rt
