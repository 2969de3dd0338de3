// executor.h: the real-time driver of the scheduler.
//
// Events (arrivals, finished launches) go into a bounded ring. Whoever has pushed one tries to take
// the token; its holder feeds the scheduler and carries out its actions, so that a request costs no
// thread switch but the one to its lane. The executor's own thread rings in deadlines and takes
// over what others leave behind. No call here touches Python.
//
// Thread safety: every public function from any thread of the process that opened the executor.
//
// Invariants:
// 1. The scheduler, `stats_`, `now_`, `actions_`, `armed_` and all writes to requests after their
// submission
//    belong to the token's holder.
// 2. No event is stranded: after every push somebody holds or will take the token (token.h), or the
//    timer is about to ring.
// 3. Every accepted request ends exactly once, in its ticket, its ending or the completions.
// 4. in_flight_ counts accepted requests that have not ended. A submitter raises it before it looks
//    at accepting_, close() lowers accepting_ before it looks at in_flight_.
// 5. A tenant's `waiting` never exceeds its limit.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "rt/backend.h"
#include "rt/completions.h"
#include "rt/lane.h"
#include "rt/native.h"
#include "rt/pool.h"
#include "rt/request.h"
#include "rt/ring.h"
#include "rt/table.h"
#include "rt/ticket.h"
#include "rt/timeline.h"
#include "rt/timer.h"
#include "rt/token.h"
#include "sched/stats.h"
#include "tape/recorder.h"

namespace st::rt {

inline constexpr std::uint32_t kMostLanes = 1024;

// The executor refuses, for it is closed.
struct Closed : std::logic_error {
  using std::logic_error::logic_error;
};

struct Options {
  sched::Policy policy;
  std::uint32_t capacity = 1 << 16;  // requests in flight, over all tenants
  std::size_t timeline = 0;          // happenings kept until read; 0 = off
  std::size_t record = 0;            // bytes of recording kept; 0 = off
};

struct Submission {
  TenantId tenant = kNone;
  std::uint32_t samples = 1;
  std::int32_t priority = sched::kTenants;
  TimeNs deadline = kNever;  // an instant, not a duration
  std::uint64_t token = 0;   // the caller's name of the request
  Ticket* ticket = nullptr;  // null: the end is reported by completions()
  Ending* ending = nullptr;  // told of the end instead of either
};

enum class Refusal : std::uint8_t { kNone, kQueueFull, kNoCapacity, kClosed, kRemoved };

// Requests of several tenants in turn, submitted as far as there is room.
struct Bulk {
  std::vector<TenantId> tenants;  // request i belongs to tenants[i % size]
  std::uint64_t count = 0;
  Submission each;              // tenant, ticket and deadline are set per request
  TimeNs deadline_ns = kNever;  // after its arrival
  bool block = true;            // wait for room, rather than count it as kQueueFull
  std::shared_ptr<Ticket> ticket;
  std::uint64_t next = 0;  // requests before this one are submitted or refused
};

struct Counters {
  sched::Stats stats;
  std::vector<std::uint64_t> failed;   // by tenant: requests whose launch returned an error
  std::vector<std::uint64_t> refused;  // by tenant: requests refused for want of room
  std::uint64_t in_flight = 0;         // accepted and not ended
  std::uint64_t waiting = 0;           // requests
  std::uint64_t running = 0;           // launches
  std::uint64_t timeline_lost = 0;     // happenings that found the timeline full
};

class Executor : public std::enable_shared_from_this<Executor> {
 public:
  // open: the last copy of the returned pointer closes the executor; threads hold their own.
  static std::shared_ptr<Executor> open(const Options& options, std::shared_ptr<Backend> backend);
  Executor(const Options& options, std::shared_ptr<Backend> backend);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // add_lane: on a partition of these units; `native` lanes get their own dispatcher thread, the
  // others are served by whoever calls take() and finish().
  // Lanes of one `pool` (any number but kNone) share what waits. At any time, also under load.
  LaneId add_lane(const std::vector<std::uint32_t>& units, bool borrows, bool native,
                  int priority = 0, std::uint32_t pool = kNone);
  // close_lane: for good: its take() gives null, its dispatcher thread ends.
  // A launch that runs there, its own or borrowed, finishes first. Throws std::invalid_argument
  // while requests wait there or routes lead there.
  void close_lane(LaneId lane);
  FamilyId add_family(const sched::FamilySpec& spec);
  TenantId add_tenant(const sched::TenantSpec& spec);
  void remove_tenant(TenantId tenant);
  // set_native: on that lane, or on every lane that has no function of its own for the family.
  void set_native(FamilyId family, Native native, LaneId lane = kNone);
  void set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns);
  void set_duty(LaneId lane, std::vector<sched::DutyTurn> turns);
  // set_routes, set_batch: see Scheduler; in force for all that is submitted after they return.
  void set_routes(TenantId tenant, sched::Routes routes, bool move);
  void set_batch(FamilyId family, LaneId lane, std::uint32_t samples);
  std::uint64_t load(LaneId lane);  // requests waiting on the lane, and 1 while it is busy
  TimeNs predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples);
  bool straggling(TenantId tenant);
  Counters counters();

  // submit: the request's id, or why it was refused.
  Refusal submit(const Submission& submission, RequestId& id);
  // submit_some: true once all of the bulk is submitted or refused; false when `until` has passed.
  bool submit_some(Bulk& bulk, TimeNs until);
  bool cancel(RequestId id);  // false if it has started or ended

  bool completions(std::vector<Completion>& out, std::size_t most, TimeNs until);
  void timeline(std::vector<Happening>& out) { timeline_.drain(out); }
  std::string recording();  // of the scheduler so far, sealed (tape/tape.h); empty when off

  // For lanes served from outside: take a launch, set its codes, finish it. take runs native
  // launches itself and returns foreign ones; null when `until` has passed or the lane is closed.
  Launch* take(LaneId lane, TimeNs until);
  bool finish(LaneId lane, LaunchId launch, std::span<const std::int32_t> codes);
  void fail(LaneId lane);  // its server has gone: its launches fail, now and from now on
  Lane& lane(LaneId id);
  std::uint32_t lanes() const { return lanes_.size(); }

  // close: refuses new requests, then drains or drops the accepted ones, then stops all threads.
  // False if launches had to be given up at `until`. `poll` is called while it waits, and may
  // throw.
  bool close(bool drain, TimeNs until, const std::function<void()>& poll = {});
  bool forked() const;  // this process is a child of the one that opened the executor
  // runs_inline: there was no lane when the first tenant came; whoever pumps runs the launches.
  bool runs_inline() const { return inline_.load(std::memory_order_acquire) != nullptr; }

 private:
  struct Event {
    enum class Kind : std::uint8_t { kArrive, kFinish, kLost };
    Kind kind = Kind::kArrive;
    std::uint32_t subject = 0;  // request's place, or lane
    LaunchId launch = 0;
    TimeNs at = 0;
  };
  struct Family {
    // Every one ever set. Those replaced may be running still, and what dies under the token may
    // not wait for anything, so they are kept.
    std::vector<Native> natives;
    Function any;                   // for lanes without one of their own
    std::vector<Function> by_lane;  // empty where `any` runs
    Function on(LaneId lane) const {
      return lane < by_lane.size() && by_lane[lane] ? by_lane[lane] : any;
    }
  };
  struct Tenant {
    std::uint32_t limit = 0;
    std::uint64_t failed = 0;
    std::atomic<std::uint64_t> refused{0};  // for want of room
    LaunchId counted_in = ~LaunchId{0};     // the last launch it was counted as a member of
    std::atomic<bool> removed{false};
    alignas(kCacheLine) std::atomic<std::uint32_t> waiting{0};
  };

  // submit.cpp
  Refusal accept(const Submission& submission, TimeNs now, RequestId& id);
  Refusal take_room(Tenant& tenant, std::uint32_t& place);
  void leave_room(Tenant& tenant);
  void wait_for_room(Tenant& tenant, TimeNs until);
  void refuse_rest(Bulk& bulk, Outcome outcome);
  void make_room();
  void retire(std::uint64_t requests);
  void open_inline_lane();

  // pump.cpp
  void pump(bool own_thread = false);
  bool run_events(std::uint32_t budget);
  void on_arrive(std::uint32_t place);
  void on_finish(const Event& event);
  void carry_out();
  void begin(const sched::Start& start);
  void lose(const sched::Start& start);
  void end(std::uint32_t place, Outcome outcome, std::int32_t code, TimeNs at);
  void end_launch(const Launch& launch, TimeNs at, Outcome forced, std::int32_t code);
  void give_up(Lane& lane, Outcome outcome, std::int32_t code);
  void count(const InFlight& request);
  void settle_round();
  void arm();
  bool serve_inline();
  void post_finish(Lane& lane, LaunchId launch, TimeNs at);

  // executor.cpp
  template <typename Change>
  auto exclusively(Change change);
  void refuse_if_closed() const;
  void start_server(Lane& lane);
  void serve(Lane& lane);
  void keep_time();
  bool wait_idle(TimeNs until, const std::function<void()>& poll);
  void drop_waiting();
  void abandon_running();
  void stop();

  const int process_;  // count of forks when it was opened
  const std::shared_ptr<Backend> backend_;
  Pool<InFlight> pool_;
  Ring<Event> events_;
  Token token_;
  tape::Recorder scheduler_;
  sched::Actions actions_;
  sched::Stats stats_;
  std::vector<sched::Request> burst_;
  TimeNs now_ = 0;
  TimeNs armed_ = kNever;          // when the timer will ring
  std::uint64_t ended_ = 0;        // since the last settle_round
  bool started_ = false;           // likewise, whether a launch began
  bool dropping_ = false;          // closed: what still arrives is dropped
  std::atomic<bool> rung_{false};  // the timer has rung; publishes nothing else

  Table<Lane, kMostLanes> lanes_;
  Table<Family, 1 << 16> families_;
  Table<Tenant, 1 << 16> tenants_;
  std::atomic<Lane*> inline_{nullptr};  // set once, under the token
  Completions completions_;
  Timeline timeline_;
  Timer timer_;

  alignas(kCacheLine) std::atomic<std::uint64_t> in_flight_{0};
  std::atomic<bool> accepting_{true};
  std::atomic<std::uint32_t> room_waiters_{0};
  Signal room_;
  Signal idle_;

  std::mutex threads_mutex_;  // guards the threads, and stop()
  std::vector<std::pair<Lane*, std::thread>> servers_;
  std::thread timekeeper_;
  std::atomic<bool> stopping_{false};
  bool stopped_ = false;
  bool clean_ = true;  // nothing was abandoned
};

}  // namespace st::rt
