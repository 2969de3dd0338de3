// signal.h: how a thread sleeps until another has changed something. An event count on a futex.
//
// Thread safety: everything from any thread.
//
// Invariants:
// 1. notify() after a change wakes every thread whose seen() was taken before it.
// 2. notify() without sleepers is two atomic operations and no system call.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "rt/clock.h"

namespace st::rt {

class Signal {
 public:
  std::uint32_t seen() const { return epoch_.load(std::memory_order_seq_cst); }
  void notify();
  // wait: until a notify after `seen`, or the monotonic instant `until`; may also wake early.
  void wait(std::uint32_t seen, TimeNs until);

  // await: until ready() holds (true) or `until` has passed (false). Looks for up to `spin_ns`
  // before it sleeps, if a core is free to look with.
  template <typename Ready>
  bool await(Ready ready, TimeNs until, TimeNs spin_ns = 0) {
    if (ready()) return true;
    if (spin_ns > 0 && spin(spin_ns, until, ready)) return true;
    for (;;) {
      const std::uint32_t seen_before = seen();
      if (ready()) return true;
      if (now_ns() >= until) return false;
      wait(seen_before, until);
    }
  }

 private:
  static bool claim_spin();
  static void release_spin();
  static void relax();

  template <typename Ready>
  static bool spin(TimeNs spin_ns, TimeNs until, Ready ready) {
    if (!claim_spin()) return false;
    const TimeNs stop = now_ns() + spin_ns;
    bool found = false;
    for (TimeNs now = 0; !found && now < stop && now < until; now = now_ns()) {
      for (int i = 0; i < 16 && !found; ++i) {
        relax();
        found = ready();
      }
      // Whoever is to make it ready may need this very core: 43 us a roundtrip without, 2 with.
      if (!found) std::this_thread::yield();
    }
    release_spin();
    return found;
  }

  std::atomic<std::uint32_t> epoch_{0};     // publishes every change made before a notify
  std::atomic<std::uint32_t> sleepers_{0};  // threads in, or about to enter, the futex
};

}  // namespace st::rt
