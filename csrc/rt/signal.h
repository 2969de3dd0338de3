// signal.h: how a thread sleeps until another has changed something. An event count on a futex.
//
// Thread safety: everything from any thread.
//
// Nobody looks for a while before it sleeps: measured on two cores, that cost 40 us a roundtrip
// whenever the two threads shared a core, and slices of other programs' time whenever it yielded.
//
// Invariants:
// 1. notify() after a change wakes every thread whose seen() was taken before it.
// 2. notify() without sleepers is two atomic operations and no system call.
#pragma once

#include <atomic>
#include <cstdint>

#include "rt/clock.h"

namespace st::rt {

class Signal {
 public:
  std::uint32_t seen() const { return epoch_.load(std::memory_order_seq_cst); }
  void notify();
  // wait: until a notify after `seen`, or the monotonic instant `until`; may also wake early.
  void wait(std::uint32_t seen, TimeNs until);

  // await: until ready() holds (true) or `until` has passed (false).
  template <typename Ready>
  bool await(Ready ready, TimeNs until) {
    for (;;) {
      const std::uint32_t seen_before = seen();
      if (ready()) return true;
      if (now_ns() >= until) return false;
      wait(seen_before, until);
    }
  }

 private:
  std::atomic<std::uint32_t> epoch_{0};     // publishes every change made before a notify
  std::atomic<std::uint32_t> sleepers_{0};  // threads in, or about to enter, the futex
};

}  // namespace st::rt
