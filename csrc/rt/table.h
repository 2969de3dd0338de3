// table.h: a list that only grows, whose items never move.
//
// Thread safety: find and size from any thread; add from one thread at a time.
//
// Invariants:
// 1. An item below size() is complete and stays at its address until the table dies.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace st::rt {

template <typename T, std::uint32_t kMost>
class Table {
 public:
  std::uint32_t size() const { return size_.load(std::memory_order_acquire); }

  // find: null beyond the end.
  T* find(std::uint32_t index) const {
    // acquire: pairs with add's release, which publishes the item and its chunk.
    if (index >= size()) return nullptr;
    return (*chunks_[index / kChunk])[index % kChunk].get();
  }
  T& operator[](std::uint32_t index) const { return *find(index); }

  std::uint32_t add(std::unique_ptr<T> item) {
    const std::uint32_t index = size_.load(std::memory_order_relaxed);
    if (index >= kMost) throw std::length_error("at most " + std::to_string(kMost) + " fit here");
    auto& chunk = chunks_[index / kChunk];
    if (!chunk) chunk = std::make_unique<Chunk>();
    (*chunk)[index % kChunk] = std::move(item);
    size_.store(index + 1, std::memory_order_release);
    return index;
  }

 private:
  static constexpr std::uint32_t kChunk = 64;
  using Chunk = std::array<std::unique_ptr<T>, kChunk>;
  std::array<std::unique_ptr<Chunk>, (kMost + kChunk - 1) / kChunk> chunks_;
  std::atomic<std::uint32_t> size_{0};
};

}  // namespace st::rt
