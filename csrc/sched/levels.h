// levels.h: how many samples wait on a lane at each level of priority.
//
// A level is one number, larger goes first: a request's own priority, else its tenant's. Mostly
// there is one level, and everything here is a look at the first entry.
//
// Invariant: entries ascend by level, and each has at least one sample; where nothing waits one of
// none may be left.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace st::sched {

class Levels {
 public:
  void add(std::int32_t level, std::uint32_t samples) {
    if (entries_.size() == 1 && (entries_[0].level == level || entries_[0].samples == 0)) {
      entries_[0].level = level;
      entries_[0].samples += samples;
      lowest_ = level;
    } else {
      add_slowly(level, samples);
    }
  }
  void remove(std::int32_t level, std::uint32_t samples) {
    const auto at = entries_.size() == 1 ? entries_.begin() : place(level);
    at->samples -= samples;
    if (at->samples > 0) return;
    if (entries_.size() > 1) {
      entries_.erase(at);
      lowest_ = entries_.front().level;
    } else {
      lowest_ = kNobody;
    }
  }

  bool mixed() const { return entries_.size() > 1; }
  std::int32_t highest() const { return entries_.back().level; }  // not of none
  // below: something waits at a lower level than this one.
  bool below(std::int32_t level) const { return lowest_ < level; }
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

  void add_slowly(std::int32_t level, std::uint32_t samples) {
    const auto at = place(level);
    if (at == entries_.end() || at->level != level) {
      entries_.insert(at, {level, samples});
    } else {
      at->samples += samples;
    }
    lowest_ = entries_.front().level;
  }
  std::vector<Entry>::iterator place(std::int32_t level) {
    return std::lower_bound(entries_.begin(), entries_.end(), level,
                            [](const Entry& entry, std::int32_t of) { return entry.level < of; });
  }

  static constexpr std::int32_t kNobody = std::numeric_limits<std::int32_t>::max();

  std::vector<Entry> entries_;
  std::int32_t lowest_ = kNobody;  // looked at for every lane a request may go to
};

}  // namespace st::sched
