// ring.h: bounded queues without locks. Capacities are powers of two.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace st::rt {

inline constexpr std::size_t kCacheLine = 64;

// Ring: many producers, one consumer at a time.
//
// Thread safety: try_push from any thread. try_pop from one thread at a time, and consecutive
// consumers must synchronise with each other (the executor's baton does). empty from any thread.
//
// Invariants (position p lives in cell p % capacity; turns count half-laps):
// 1. turn == 2*(p/capacity): the cell waits for the producer that claims p.
// 2. turn == 2*(p/capacity)+1: the cell holds the value of p, waiting for the consumer.
// 3. Values leave in the order in which their positions were claimed.
template <typename T>
class Ring {
 public:
  explicit Ring(std::size_t capacity)
      : mask_(std::bit_ceil(capacity < 1 ? std::size_t{1} : capacity) - 1),
        cells_(std::make_unique<Cell[]>(mask_ + 1)) {}

  // try_push: false when full. Publishes with a sequentially consistent store, so that a producer
  // that next finds the consumer's baton taken knows its holder will see the value (pump.h).
  bool try_push(const T& value) {
    std::uint64_t position = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[position & mask_];
      // acquire: the consumer's read of the previous lap happened before our write.
      const std::uint64_t turn = cell.turn.load(std::memory_order_acquire);
      if (turn == write_turn(position)) {
        if (tail_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
          cell.value = value;
          cell.turn.store(turn + 1, std::memory_order_seq_cst);  // publishes value
          return true;
        }
      } else if (turn < write_turn(position)) {
        return false;
      } else {
        position = tail_.load(std::memory_order_relaxed);
      }
    }
  }

  // try_pop: false when empty or when the next producer has claimed but not yet published.
  bool try_pop(T& value) {
    const std::uint64_t position = head_.load(std::memory_order_relaxed);
    Cell& cell = cells_[position & mask_];
    if (cell.turn.load(std::memory_order_acquire) != write_turn(position) + 1) return false;
    value = cell.value;
    head_.store(position + 1, std::memory_order_relaxed);
    cell.turn.store(write_turn(position + capacity()), std::memory_order_release);  // frees cell
    return true;
  }

  // empty: whether try_pop would find nothing. Sequentially consistent, see try_push.
  bool empty() const {
    const std::uint64_t position = head_.load(std::memory_order_relaxed);
    const Cell& cell = cells_[position & mask_];
    return cell.turn.load(std::memory_order_seq_cst) != write_turn(position) + 1;
  }

  std::size_t capacity() const { return mask_ + 1; }

 private:
  struct Cell {
    std::atomic<std::uint64_t> turn{0};
    T value{};
  };
  std::uint64_t write_turn(std::uint64_t position) const { return 2 * (position / (mask_ + 1)); }

  const std::size_t mask_;
  const std::unique_ptr<Cell[]> cells_;
  alignas(kCacheLine) std::atomic<std::uint64_t> tail_{0};  // next position to claim
  alignas(kCacheLine) std::atomic<std::uint64_t> head_{0};  // next position to pop
};

// SpscRing: one producer at a time, one consumer at a time.
//
// Thread safety: as Ring's consumer, on both sides. size from any thread.
//
// Invariants:
// 1. head <= tail <= head + capacity; both only grow.
// 2. Cells [head, tail) belong to the consumer, the others to the producer.
template <typename T>
class SpscRing {
 public:
  explicit SpscRing(std::size_t capacity)
      : mask_(std::bit_ceil(capacity < 1 ? std::size_t{1} : capacity) - 1),
        cells_(std::make_unique<T[]>(mask_ + 1)) {}

  bool try_push(const T& value) {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    // acquire: the consumer has finished reading the cell we overwrite.
    if (tail - head_.load(std::memory_order_acquire) > mask_) return false;
    cells_[tail & mask_] = value;
    tail_.store(tail + 1, std::memory_order_release);  // publishes the cell
    return true;
  }

  bool try_pop(T& value) {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return false;
    value = cells_[head & mask_];
    head_.store(head + 1, std::memory_order_release);  // frees the cell
    return true;
  }

  std::size_t size() const {
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    return static_cast<std::size_t>(tail_.load(std::memory_order_acquire) - head);
  }
  std::size_t capacity() const { return mask_ + 1; }

 private:
  const std::size_t mask_;
  const std::unique_ptr<T[]> cells_;
  alignas(kCacheLine) std::atomic<std::uint64_t> tail_{0};  // written by the producer
  alignas(kCacheLine) std::atomic<std::uint64_t> head_{0};  // written by the consumer
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(alignof(Ring<int>) == kCacheLine && alignof(SpscRing<int>) == kCacheLine);

}  // namespace st::rt
