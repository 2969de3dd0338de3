// baton.h: the right to drive the scheduler. A lock that is tried, rarely waited for.
//
// Thread safety: everything from any thread; release only by the holder.
//
// Invariants:
// 1. At most one holder; what a holder wrote is seen by the next.
// 2. Dekker: a thread that publishes an event (seq_cst) and then fails try_acquire may go away: the
//    holder's release precedes its own look at the events, and that look will find the event.
#pragma once

#include <atomic>
#include <thread>

namespace st::rt {

class Baton {
 public:
  bool try_acquire() {
    return !held_.load(std::memory_order_seq_cst) &&
           !held_.exchange(true, std::memory_order_seq_cst);
  }
  void acquire() {
    while (!try_acquire()) std::this_thread::yield();
  }
  void release() { held_.store(false, std::memory_order_seq_cst); }

 private:
  std::atomic<bool> held_{false};  // publishes everything the baton guards
};

}  // namespace st::rt
