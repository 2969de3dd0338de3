// executor.h: the real-time driver of the scheduler.
//
// Requests enter by the intake (intake.h); the pump (pump.h) feeds the scheduler on the thread that
// brought an event, and hands launches to lanes (lane.h). Here are the threads: the lanes' own, and
// one that rings in deadlines and takes over what others leave behind. No call here touches Python.
//
// Thread safety: every public function from any thread of the process that opened the executor.
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
#include "rt/intake.h"
#include "rt/lane.h"
#include "rt/native.h"
#include "rt/pump.h"
#include "rt/ticket.h"

namespace st::rt {

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
  void timeline(std::vector<Happening>& out) { pump_.timeline().drain(out); }
  std::string recording();  // of the scheduler so far, sealed (tape/tape.h); empty when off

  // For lanes served from outside: take a launch, set its codes, finish it. take runs native
  // launches itself and returns foreign ones; null when `until` has passed or the lane is closed.
  Launch* take(LaneId lane, TimeNs until);
  bool finish(LaneId lane, LaunchId launch, std::span<const std::int32_t> codes);
  void fail(LaneId lane);  // its server has gone: its launches fail, now and from now on
  Lane& lane(LaneId id);
  std::uint32_t lanes() const { return pump_.lanes().size(); }

  // close: refuses new requests, then drains or drops the accepted ones, then stops all threads.
  // False if launches had to be given up at `until`. `poll` is called while it waits, and may
  // throw.
  bool close(bool drain, TimeNs until, const std::function<void()>& poll = {});
  bool forked() const;  // this process is a child of the one that opened the executor
  // runs_inline: there was no lane when the first tenant came; whoever pumps runs the launches.
  bool runs_inline() const { return pump_.inline_lane() != nullptr; }

 private:
  void refuse_rest(Bulk& bulk, Outcome outcome);
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
  Pump pump_;

  std::mutex threads_mutex_;  // guards the threads, and stop()
  std::vector<std::pair<Lane*, std::thread>> servers_;
  std::thread timekeeper_;
  std::atomic<bool> stopping_{false};
  bool stopped_ = false;
  bool clean_ = true;  // nothing was abandoned
};

}  // namespace st::rt
