// id_table.h: request id -> slot, by open addressing with linear probing.
//
// Erasing shifts the run back, so there are no tombstones and a steady state neither grows nor
// slows down.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sched/types.h"

namespace st::sched {

class IdTable {
 public:
  IdTable() : entries_(64) {}

  // find: kNone if the id is unknown.
  std::uint32_t find(RequestId id) const {
    for (std::size_t i = home(id);; i = next(i)) {
      if (entries_[i].slot == kNone || entries_[i].id == id) return entries_[i].slot;
    }
  }

  void insert(RequestId id, std::uint32_t slot) {
    if (2 * (count_ + 1) > entries_.size()) grow();
    std::size_t i = home(id);
    while (entries_[i].slot != kNone && entries_[i].id != id) i = next(i);
    count_ += entries_[i].slot == kNone;
    entries_[i] = {id, slot};
  }

  // erase: nothing happens unless `id` still names `slot`.
  void erase(RequestId id, std::uint32_t slot) {
    std::size_t hole = home(id);
    while (entries_[hole].slot != kNone && entries_[hole].id != id) hole = next(hole);
    if (entries_[hole].slot != slot) return;
    --count_;
    for (std::size_t i = next(hole); entries_[i].slot != kNone; i = next(i)) {
      const std::size_t away = (i - home(entries_[i].id)) & (entries_.size() - 1);
      if (away < ((i - hole) & (entries_.size() - 1))) continue;
      entries_[hole] = entries_[i];
      hole = i;
    }
    entries_[hole].slot = kNone;
  }

 private:
  struct Entry {
    RequestId id = 0;
    std::uint32_t slot = kNone;
  };

  std::size_t home(RequestId id) const {
    return (id * 0x9E3779B97F4A7C15ull >> 32) & (entries_.size() - 1);
  }
  std::size_t next(std::size_t i) const { return (i + 1) & (entries_.size() - 1); }

  void grow() {
    std::vector<Entry> old(2 * entries_.size());
    std::swap(old, entries_);
    count_ = 0;
    for (const Entry& entry : old) {
      if (entry.slot != kNone) insert(entry.id, entry.slot);
    }
  }

  std::vector<Entry> entries_;
  std::size_t count_ = 0;
};

}  // namespace st::sched
