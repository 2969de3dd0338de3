// request.h: a request on its way through the executor, and how it can end.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rt/clock.h"
#include "sched/types.h"

namespace st::rt {

using sched::FamilyId;
using sched::kNone;
using sched::LaneId;
using sched::LaunchId;
using sched::RequestId;
using sched::TenantId;

class Ticket;

enum class Outcome : std::uint8_t {
  kOk,
  kFailed,     // its launch returned an error code
  kDeadline,   // not started when its deadline came
  kQueueFull,  // refused: no room for one more
  kCancelled,
  kRemoved,  // its tenant was removed
  kClosed,   // the executor was closed
};
inline constexpr std::size_t kOutcomes = 7;

// Codes of the executor itself, beside those that native functions and runners return.
inline constexpr std::int32_t kNoFunction = -1'000'001;  // native lane, family without a function
inline constexpr std::int32_t kLaneFailed = -1'000'002;  // the lane's server has gone

// What its caller learns of a request that has ended.
struct Completion {
  std::uint64_t token = 0;  // the caller's name of the request
  TenantId tenant = kNone;
  Outcome outcome = Outcome::kOk;
  std::int32_t code = 0;  // 0 unless kFailed
  TimeNs arrival_ns = 0;
  TimeNs start_ns = 0;  // 0 if it never started
  TimeNs finish_ns = 0;
  LaunchId launch = 0;        // valid if it started
  LaneId lane = kNone;        // kNone if it never started
  std::uint32_t samples = 0;  // of its whole launch
  std::uint32_t tenants = 0;  // distinct ones in its launch
};

// Who is told of a request's end, once, by the baton's holder: it may neither wait nor call the
// executor, and must live until then.
class Ending {
 public:
  virtual void ended(const Completion& end) = 0;

 protected:
  ~Ending() = default;
};

// A request in flight. Taken by the submitting thread, then owned by the baton's holder until it
// is settled with its ticket or read from the completions.
struct alignas(64) InFlight {
  sched::Request request;
  Completion end;
  Ticket* ticket = nullptr;
  Ending* ending = nullptr;
  std::uint32_t generation = 0;
};

// A request id is its place in the pool with the count of that place's uses above it.
inline std::uint32_t place_of(RequestId id) { return static_cast<std::uint32_t>(id); }
inline RequestId make_id(std::uint32_t place, std::uint32_t generation) {
  return (RequestId{generation} << 32) | place;
}

}  // namespace st::rt
