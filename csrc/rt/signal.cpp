#include "rt/signal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace st::rt {

void Signal::notify() {
  // seq_cst on both: either we see the sleeper, or its futex call sees the new epoch.
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  syscall(SYS_futex, &epoch_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void Signal::wait(std::uint32_t seen, TimeNs until) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  const timespec t = to_timespec(until);
  syscall(SYS_futex, &epoch_, FUTEX_WAIT_BITSET_PRIVATE, seen, until == kNever ? nullptr : &t,
          nullptr, FUTEX_BITSET_MATCH_ANY);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace st::rt
