// lane.h: where a launch passes from the scheduler to the thread that serves a partition.
//
// The scheduler starts a launch on a lane only after the previous one has finished, so a lane
// needs no queue of launches: it holds one.
//
// Thread safety: offer, finished and abandon by the baton's holder (pump.h); take by the
// serving thread; close from any thread.
//
// Invariants:
// 1. kIdle: the launch belongs to the baton's holder. kReady and kHeld: it may not be written,
//    but by its server, which sets codes and finish_ns while kHeld.
// 2. kIdle -> kReady -> kHeld -> kIdle, through kDone where a server outside says when it is done;
//    abandon goes to kAbandoned from anywhere and stays.
// 3. take returns a launch at most once.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "rt/backend.h"
#include "rt/native.h"
#include "rt/request.h"
#include "rt/signal.h"

namespace st::rt {

struct Launch {
  sched::Start start;
  Function function;  // empty: a foreign launch, which whoever serves the lane must run
  TimeNs start_ns = 0;
  TimeNs finish_ns = 0;
  std::uint32_t distinct_tenants = 0;
  std::vector<RequestId> requests;
  std::vector<std::uint64_t> tokens;
  std::vector<std::uint32_t> tenants;
  std::vector<std::uint32_t> samples;
  std::vector<std::int32_t> codes;  // 0, or why the request failed; set by the server

  void begin(const sched::Start& what, TimeNs now);  // empties the lists, keeps their storage
  void add(const InFlight& request);
  st_launch view() const;
  void run_native();  // sets codes and finish_ns; kNoFunction for a foreign launch
};

class Lane {
 public:
  Lane(LaneId id, std::unique_ptr<Partition> partition)
      : id_(id), partition_(std::move(partition)) {}

  LaneId id() const { return id_; }
  Partition* partition() const { return partition_.get(); }  // null: inline

  Launch& launch() { return launch_; }
  void offer();     // the launch is ready to be served
  void finished();  // its server is done with it
  void abandon();   // the server will not come back; nothing is offered any more
  bool abandoned() const { return state_.load(std::memory_order_relaxed) == State::kAbandoned; }
  bool idle() const { return state_.load(std::memory_order_relaxed) == State::kIdle; }

  // take: the launch, or null when `until` has passed or the lane is closed.
  Launch* take(TimeNs until);
  Launch* try_take();
  // finish: sets the codes of the launch it holds; false if it was abandoned meanwhile. Throws
  // std::invalid_argument if this launch is not held.
  bool finish(LaunchId launch, std::span<const std::int32_t> codes);
  void close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }

 private:
  enum class State : std::uint8_t { kIdle, kReady, kHeld, kDone, kAbandoned };

  const LaneId id_;
  const std::unique_ptr<Partition> partition_;
  Launch launch_;
  std::atomic<State> state_{State::kIdle};  // publishes launch_, both ways
  std::atomic<bool> closed_{false};
  Signal changed_;
};

}  // namespace st::rt
