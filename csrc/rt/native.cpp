#include "rt/native.h"

#include <limits>

namespace st::rt {

Native noop() {
  return {{[](void*, const st_launch*) { return 0; }, nullptr}, nullptr};
}

Native spin(TimeNs busy_ns) {
  auto busy = std::make_shared<TimeNs>(busy_ns);
  const auto call = [](void* context, const st_launch*) {
    const TimeNs stop = now_ns() + *static_cast<const TimeNs*>(context);
    while (now_ns() < stop) {
    }
    return 0;
  };
  return {{call, busy.get()}, busy};
}

Native fail(std::int32_t code) {
  auto kept = std::make_shared<std::int32_t>(code);
  const auto call = [](void* context, const st_launch*) {
    return *static_cast<const int*>(context);
  };
  return {{call, kept.get()}, kept};
}

Native Latch::native(const std::shared_ptr<Latch>& latch) {
  const auto call = [](void* context, const st_launch*) {
    static_cast<Latch*>(context)->hold();
    return 0;
  };
  return {{call, latch.get()}, latch};
}

void Latch::hold() {
  const std::uint64_t turn = entered_.fetch_add(1, std::memory_order_acq_rel) + 1;
  changed_.notify();
  changed_.await([&] { return permits_.load(std::memory_order_acquire) >= turn; }, kNever);
}

void Latch::release(std::uint64_t launches) {
  std::uint64_t now = permits_.load(std::memory_order_relaxed);
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  while (!permits_.compare_exchange_weak(now, launches > most - now ? most : now + launches,
                                         std::memory_order_acq_rel)) {
  }
  changed_.notify();
}

void Latch::open() { release(std::numeric_limits<std::uint64_t>::max()); }

bool Latch::wait_entered(std::uint64_t launches, TimeNs until) {
  return changed_.await([&] { return entered() >= launches; }, until);
}

}  // namespace st::rt
