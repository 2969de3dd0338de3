// names.h: the words for every choice of a policy, as users write them. Position = enum value.
#pragma once

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "sched/types.h"

namespace st::sched {

inline constexpr std::array<std::string_view, 4> kRouteNames = {"pinned", "weighted", "least-wait",
                                                                "elsa"};
inline constexpr std::array<std::string_view, 5> kOrderNames = {"fifo", "edf", "priority", "fair",
                                                                "duty"};
inline constexpr std::array<std::string_view, 4> kBatchNames = {"one", "greedy", "timeout",
                                                                "slack"};
inline constexpr std::array<std::string_view, 5> kDropNames = {"deadline", "queue-full",
                                                               "cancelled", "removed", "closed"};

template <class Enum, std::size_t N>
std::string_view name_of(const std::array<std::string_view, N>& names, Enum value) {
  return names[static_cast<std::size_t>(value)];
}

// parse: throws std::invalid_argument that names the field and lists the words.
template <class Enum, std::size_t N>
Enum parse(const std::array<std::string_view, N>& names, std::string_view word,
           std::string_view field) {
  std::string allowed;
  for (std::size_t i = 0; i < N; ++i) {
    if (names[i] == word) return static_cast<Enum>(i);
    allowed += (i == 0 ? "" : ", ") + std::string(names[i]);
  }
  throw std::invalid_argument(std::string(field) + ": '" + std::string(word) + "' is not one of " +
                              allowed);
}

}  // namespace st::sched
