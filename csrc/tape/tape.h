// tape.h: the bytes of a recording: what a scheduler was told and what it decided, in order.
//
// Format spacetime.recording/2: the line "spacetime.recording/2\n", then records. A record is one
// byte (Mark) and its fields:
//   u  an unsigned number, 7 bits a byte, least significant first, 0x80 = more follow
//   s  a signed number n as u of (n << 1) ^ (n >> 63)
//   f  a double, 8 bytes little endian
//   n[..]  a count u, and that many times what is in the brackets
// Set-up, without a time:
//   P route u, order u, batch u, timeout_ns s, shed u, lend u, first_fit u, elsa_alpha f,
//     elsa_beta f, straggler multiple f, recovery f, patience u, straggler_lane u,
//     max_borrow_ns s, age_ns s                                        (first, and once)
//   L units u, borrows u, pool u      F n[bucket u]
//   T family u, priority s, weight f, queue_limit u, lane u, n[lane weight f]
//   S family u, lane u, bucket u, latency_ns s
//   Y lane u, n[tenant u, batch u]                           (a duty cycle)
//   C lane u                                                 (closed)
// Events, each with the ns since the previous one (the first: since 0) as its first u:
//   a n[request u, tenant u, samples u, priority, now - arrival s, deadline]
//     where priority is u 0 for the tenant's, else u 1 and s, and deadline is u 0 for none, else u
//     1 and s (deadline - now)
//   c request u      f launch u      w      r tenant u      x  (drop_all)
//   o tenant u, lane u, n[lane weight f], move u             (routes)
//   b family u, lane u, samples u                            (batch)
// Decisions, after the event they answer, drops first:
//   d request u, tenant u, reason u
//   s launch u, lane u, family u, samples u, bucket u, n[request u]
// Format 1 had no age, and priorities of requests were added to their tenants': it is refused.
// The end: E events u, complete u, then 8 bytes: FNV-1a 64 of all bytes before them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace st::tape {

inline constexpr std::string_view kRecordingHead = "spacetime.recording/2\n";

enum class Mark : char {
  kPolicy = 'P',
  kLane = 'L',
  kFamily = 'F',
  kTenant = 'T',
  kLatency = 'S',
  kDuty = 'Y',
  kClose = 'C',
  kArrive = 'a',
  kCancel = 'c',
  kFinish = 'f',
  kWake = 'w',
  kRemove = 'r',
  kDropAll = 'x',
  kRoutes = 'o',
  kBatch = 'b',
  kDrop = 'd',
  kStart = 's',
  kEnd = 'E',
};

// Appends records. Long tapes are kept in pieces: growing never copies what is there.
class Tape {
 public:
  void mark(Mark mark);
  void number(std::uint64_t value);
  void integer(std::int64_t value) { number(zigzag(value)); }
  void real(double value);
  std::size_t size() const { return full_bytes_ + piece_.size(); }
  std::string copy() const;

 private:
  static std::uint64_t zigzag(std::int64_t value) {
    return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
  }

  std::vector<std::string> full_;
  std::size_t full_bytes_ = 0;
  std::string piece_;
};

// seal: appends the checksum to a recording that lacks only that.
void seal(std::string& recording);

// Reads records. Throws std::invalid_argument `recording: byte N: what is wrong`.
class TapeReader {
 public:
  explicit TapeReader(std::string_view bytes);  // checks the head and the checksum

  Mark peek() const;
  Mark mark();
  std::uint64_t number(std::uint64_t most, const char* field);
  std::uint32_t small(const char* field);  // a number of 32 bits
  bool flag(const char* field) { return number(1, field) == 1; }
  std::int64_t integer(std::int64_t least, std::int64_t most, const char* field);
  double real();
  std::uint64_t count(const char* field);  // of things of at least a byte each
  bool at_end() const { return place_ == bytes_.size(); }
  [[noreturn]] void fail(const std::string& problem) const;

 private:
  std::string_view bytes_;  // without the checksum
  std::size_t place_ = 0;
};

}  // namespace st::tape
