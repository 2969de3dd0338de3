#include "rt/signal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <thread>

namespace st::rt {
namespace {

// Threads that look instead of sleeping, in the whole process: never all cores.
std::atomic<int> spinning{0};
const int kMostSpinning = std::max(0, static_cast<int>(std::thread::hardware_concurrency()) - 1);

}  // namespace

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

bool Signal::claim_spin() {
  int held = spinning.load(std::memory_order_relaxed);
  while (held < kMostSpinning) {
    if (spinning.compare_exchange_weak(held, held + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

void Signal::release_spin() { spinning.fetch_sub(1, std::memory_order_relaxed); }

void Signal::relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace st::rt
