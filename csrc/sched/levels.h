// levels.h: how many samples wait on a lane at each level of priority.
//
// A level is one number, larger goes first: a request's own priority, else its tenant's. Mostly
// there is one level, and everything here is a look at the first entry.
//
// Invariant: entries ascend by level, and each has at least one sample.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace st::sched {

class Levels {
 public:
  void add(std::int32_t level, std::uint32_t samples) {
    const auto at = place(level);
    if (at == entries_.end() || at->level != level) {
      entries_.insert(at, {level, samples});
    } else {
      at->samples += samples;
    }
  }
  void remove(std::int32_t level, std::uint32_t samples) {
    const auto at = place(level);
    at->samples -= samples;
    if (at->samples == 0) entries_.erase(at);
  }

  bool mixed() const { return entries_.size() > 1; }
  std::int32_t highest() const { return entries_.back().level; }  // not of none
  // below: something waits at a lower level than this one.
  bool below(std::int32_t level) const {
    return !entries_.empty() && entries_.front().level < level;
  }
  // part_from: of all samples, the part that waits at this level or above it.
  double part_from(std::int32_t level) const {
    std::uint64_t all = 0;
    std::uint64_t ahead = 0;
    for (const Entry& entry : entries_) {
      all += entry.samples;
      if (entry.level >= level) ahead += entry.samples;
    }
    return all == 0 ? 0 : static_cast<double>(ahead) / static_cast<double>(all);
  }

 private:
  struct Entry {
    std::int32_t level;
    std::uint64_t samples;
  };

  std::vector<Entry>::iterator place(std::int32_t level) {
    return std::lower_bound(entries_.begin(), entries_.end(), level,
                            [](const Entry& entry, std::int32_t of) { return entry.level < of; });
  }

  std::vector<Entry> entries_;
};

}  // namespace st::sched
