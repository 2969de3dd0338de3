// indexed_heap.h: a binary min-heap of ids whose items know their place in it.
//
// Each item (a waiting request, a cell) stores its place in one of its own members, so that any
// entry is erased or re-keyed in O(log n). Equal keys leave by ascending id. The vector keeps its
// capacity: a steady state allocates nothing.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sched/types.h"

namespace st::sched {

template <class Item, std::uint32_t Item::* Place, class Key>
class IndexedHeap {
 public:
  struct Entry {
    Key key;
    std::uint32_t id;
  };
  using Items = std::vector<Item>;

  bool empty() const { return entries_.empty(); }
  std::size_t size() const { return entries_.size(); }
  const Entry& top() const { return entries_.front(); }
  const std::vector<Entry>& entries() const { return entries_; }
  static bool holds(const Items& items, std::uint32_t id) { return items[id].*Place != kNone; }

  void push(Items& items, const Key& key, std::uint32_t id) {
    entries_.push_back({key, id});
    rise(items, static_cast<std::uint32_t>(entries_.size() - 1));
  }

  void erase(Items& items, std::uint32_t id) {
    const std::uint32_t place = items[id].*Place;
    items[id].*Place = kNone;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (place == entries_.size()) return;
    entries_[place] = last;
    settle(items, place);
  }

  void update(Items& items, const Key& key, std::uint32_t id) {
    const std::uint32_t place = items[id].*Place;
    entries_[place].key = key;
    settle(items, place);
  }

 private:
  static bool before(const Entry& a, const Entry& b) {
    if (a.key < b.key) return true;
    if (b.key < a.key) return false;
    return a.id < b.id;
  }

  void put(Items& items, std::uint32_t place, const Entry& entry) {
    entries_[place] = entry;
    items[entry.id].*Place = place;
  }

  void settle(Items& items, std::uint32_t place) {
    if (place > 0 && before(entries_[place], entries_[(place - 1) / 2])) {
      rise(items, place);
    } else {
      sink(items, place);
    }
  }

  void rise(Items& items, std::uint32_t place) {
    const Entry entry = entries_[place];
    while (place > 0) {
      const std::uint32_t parent = (place - 1) / 2;
      if (!before(entry, entries_[parent])) break;
      put(items, place, entries_[parent]);
      place = parent;
    }
    put(items, place, entry);
  }

  void sink(Items& items, std::uint32_t place) {
    const Entry entry = entries_[place];
    const auto count = static_cast<std::uint32_t>(entries_.size());
    for (std::uint32_t child = 2 * place + 1; child < count; child = 2 * place + 1) {
      if (child + 1 < count && before(entries_[child + 1], entries_[child])) ++child;
      if (!before(entries_[child], entry)) break;
      put(items, place, entries_[child]);
      place = child;
    }
    put(items, place, entry);
  }

  std::vector<Entry> entries_;
};

}  // namespace st::sched
