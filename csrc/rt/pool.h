// pool.h: a fixed set of T, taken and given back from any thread without a lock.
//
// Thread safety: take and give from any thread; an item belongs to who took it.
//
// Invariants:
// 1. An index is either taken or on the free list, never both, never twice.
// 2. The free list is last in, first out, so a light load keeps touching the same few items.
// 3. `top` carries a count of changes beside the index: a stale compare-exchange fails (no ABA).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "rt/ring.h"

namespace st::rt {

template <typename T>
class Pool {
 public:
  static constexpr std::uint32_t kEmpty = 0xffffffffu;

  explicit Pool(std::uint32_t capacity)
      : capacity_(capacity),
        items_(std::make_unique<T[]>(capacity)),
        next_(std::make_unique<std::atomic<std::uint32_t>[]>(capacity)) {
    for (std::uint32_t i = 0; i < capacity; ++i) next_[i] = i + 1 < capacity ? i + 1 : kEmpty;
    top_ = capacity > 0 ? 0 : kEmpty;
  }

  // take: an index, or kEmpty when every item is taken.
  std::uint32_t take() {
    std::uint64_t top = top_.load(std::memory_order_acquire);
    for (;;) {
      const auto index = static_cast<std::uint32_t>(top);
      if (index == kEmpty) return kEmpty;
      const std::uint64_t below = changed(top, next_[index].load(std::memory_order_relaxed));
      // acquire: the item's last owner is done with it.
      if (top_.compare_exchange_weak(top, below, std::memory_order_acquire)) return index;
    }
  }

  void give(std::uint32_t index) {
    std::uint64_t top = top_.load(std::memory_order_relaxed);
    do {
      next_[index].store(static_cast<std::uint32_t>(top), std::memory_order_relaxed);
      // seq_cst: publishes the item, and orders it before a look for threads that wait for room.
    } while (!top_.compare_exchange_weak(top, changed(top, index), std::memory_order_seq_cst));
  }

  bool empty() const { return static_cast<std::uint32_t>(top_.load()) == kEmpty; }
  T& operator[](std::uint32_t index) { return items_[index]; }
  std::uint32_t capacity() const { return capacity_; }

 private:
  static std::uint64_t changed(std::uint64_t top, std::uint32_t index) {
    return (((top >> 32) + 1) << 32) | index;
  }

  const std::uint32_t capacity_;
  const std::unique_ptr<T[]> items_;
  const std::unique_ptr<std::atomic<std::uint32_t>[]> next_;
  alignas(kCacheLine) std::atomic<std::uint64_t> top_{kEmpty};  // change count << 32 | index
};

}  // namespace st::rt
