// types.h: the nouns and the verbs between the scheduler and its two drivers.
//
// Plain values, no clock, no thread, no device. Time is integer nanoseconds on an axis the driver
// chooses (virtual time in the simulator, the monotonic clock in the executor).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace st::sched {

using TimeNs = std::int64_t;
inline constexpr TimeNs kNever = std::numeric_limits<TimeNs>::max();

using LaneId = std::uint32_t;
using FamilyId = std::uint32_t;
using TenantId = std::uint32_t;
using RequestId = std::uint64_t;  // chosen by the driver, unique while the request lives
using LaunchId = std::uint64_t;   // chosen by the scheduler, never reused
inline constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
// Priority of a request that has none of its own: its tenant's.
inline constexpr std::int32_t kTenants = std::numeric_limits<std::int32_t>::min();

// Which lane a request is queued on.
enum class Route : std::uint8_t { kPinned, kWeighted, kLeastWait, kElsa };
// Which family a free lane serves next.
enum class Order : std::uint8_t { kFifo, kEdf, kPriority, kFair, kDuty };
// How many requests a launch takes, and how long a free lane waits for more.
enum class BatchRule : std::uint8_t { kOne, kGreedy, kTimeout, kSlack };

enum class DropReason : std::uint8_t { kDeadline, kQueueFull, kCancelled, kRemoved, kClosed };

// How sensitively a slow tenant is told from its family, and when it may come back.
struct StragglerRule {
  double multiple = 0.0;       // observed / predicted above which a tenant strays; 0 = off
  double recovery = 1.2;       // ratio below which it has recovered
  std::uint32_t patience = 8;  // consecutive launches on either side before anything happens
};

struct Policy {
  Route route = Route::kLeastWait;
  Order order = Order::kEdf;
  BatchRule batch = BatchRule::kSlack;
  TimeNs timeout_ns = 2'000'000;  // batch rule timeout: longest wait of the oldest request
  bool shed = false;              // drop at its turn what its launch would answer too late
  bool lend = true;               // idle lanes run others' work; the owner is served first
  bool first_fit = false;         // elsa: as in its paper, the first lane with positive slack
  double elsa_alpha = 1.0;
  double elsa_beta = 1.0;
  StragglerRule straggler;
  LaneId straggler_lane = kNone;  // where a straggler's own launches go; kNone = its routed lane
  TimeNs max_borrow_ns = kNever;  // lending: longest predicted launch an idle lane takes on
  // How long a lane passes over lower levels before one launch begins with the oldest request among
  // them (order.h); kNever = as long as a higher one waits.
  TimeNs age_ns = 200'000'000;
};

struct LaneSpec {
  std::uint32_t units = 1;     // size of its partition: elsa's size class
  bool borrows = true;         // may run work queued on other lanes while idle
  std::uint32_t pool = kNone;  // lanes of a pool share what waits, with or without lending
};

struct FamilySpec {
  std::vector<std::uint32_t> buckets;  // ascending batch sizes a runner is prepared for; not empty
};

// One turn of a lane's duty cycle: at its turn `tenant` may start up to `batch` samples.
struct DutyTurn {
  TenantId tenant = kNone;
  std::uint32_t batch = 1;
};

struct TenantSpec {
  FamilyId family = kNone;
  std::int32_t priority = 0;         // the level of requests without one of their own
  double weight = 1.0;               // share of service under order `fair` and inside a fused batch
  std::uint32_t queue_limit = 1024;  // waiting requests; one more is dropped with kQueueFull
  LaneId lane = kNone;               // route pinned: its lane. Owner of that lane under lending
  std::vector<double> lane_weights;  // route weighted: planned rate by lane
};

// Where a tenant's arrivals go: as in TenantSpec.
struct Routes {
  LaneId lane = kNone;
  std::vector<double> lane_weights;
};

struct Request {
  RequestId id = 0;
  TenantId tenant = kNone;
  std::uint32_t samples = 1;         // leading batch dimension of its input
  std::int32_t priority = kTenants;  // its level, in place of the tenant's; larger goes first
  TimeNs arrival = 0;
  TimeNs deadline = kNever;  // dropped at this instant if it has not started
};

// A launch the driver must begin now. `requests[first, first+count)` of Actions::requests.
struct Start {
  LaunchId launch = 0;
  LaneId lane = kNone;
  FamilyId family = kNone;
  std::uint32_t samples = 0;  // sum over the requests
  std::uint32_t bucket = 0;   // samples padded up; == samples where it exceeds every bucket
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  TimeNs predicted_ns = 0;
};

struct Drop {
  RequestId request = 0;
  TenantId tenant = kNone;
  DropReason reason = DropReason::kDeadline;
};

// What the scheduler wants done, in order of decision. Owned and cleared by the driver, so a
// steady state allocates nothing.
struct Actions {
  std::vector<Start> starts;
  std::vector<RequestId> requests;
  std::vector<Drop> drops;
  void clear() {
    starts.clear();
    requests.clear();
    drops.clear();
  }
};

}  // namespace st::sched
