// pump.h: events into the scheduler, its actions out to lanes and callers.
//
// Events (arrivals, finished launches) go into a bounded ring. Whoever has pushed one calls run(),
// which tries to take the baton; its holder feeds the scheduler and carries out its actions, so
// that a request costs no thread switch but the one to its lane.
//
// The pump holds its intake by value, as the executor holds the pump: a request follows no pointer
// from one to the other.
//
// Thread safety: every public function from any thread, except those that say "holder": these are
// for a change that runs inside exclusively().
//
// Invariants:
// 1. The scheduler, `stats_`, `now_`, `actions_`, `armed_` and all writes to requests after their
//    submission belong to the baton's holder.
// 2. No event is stranded: after every push somebody holds or will take the baton (baton.h), or the
//    timer is about to ring.
// 3. Every accepted request ends exactly once, in its ticket, its ending or the completions.
#pragma once

#include <memory>
#include <type_traits>
#include <vector>

#include "rt/baton.h"
#include "rt/completions.h"
#include "rt/intake.h"
#include "rt/lane.h"
#include "rt/native.h"
#include "rt/ticket.h"
#include "rt/timeline.h"
#include "rt/timer.h"
#include "sched/stats.h"
#include "tape/recorder.h"

namespace st::rt {

inline constexpr std::uint32_t kMostLanes = 1024;

// The functions that run a family's launches.
struct FamilyFunctions {
  // Every one ever set. Those replaced may be running still, and what dies under the baton may not
  // wait for anything, so they are kept.
  std::vector<Native> natives;
  Function any;                   // for lanes without one of their own
  std::vector<Function> by_lane;  // empty where `any` runs
  Function on(LaneId lane) const {
    return lane < by_lane.size() && by_lane[lane] ? by_lane[lane] : any;
  }
};

class Pump {
 public:
  using Lanes = Table<Lane, kMostLanes>;
  using Families = Table<FamilyFunctions, 1 << 16>;

  // What a change is given: the scheduler, the instant, and where its decisions go.
  struct Held {
    tape::Recorder& scheduler;
    const TimeNs now;
    sched::Actions& out;
  };

  // `capacity` requests in flight, so many happenings of timeline, so many bytes of recording.
  Pump(const sched::Policy& policy, std::uint32_t capacity, std::size_t timeline,
       std::size_t record);

  Intake& intake() { return intake_; }
  const Intake& intake() const { return intake_; }
  Lanes& lanes() { return lanes_; }
  const Lanes& lanes() const { return lanes_; }
  Completions& completions() { return completions_; }
  Timeline& timeline() { return timeline_; }
  Lane* inline_lane() const { return inline_.load(std::memory_order_acquire); }  // null: none

  // arrived, finished: push an event; run() must follow. A push never fails: the ring has room for
  // every place of the pool and two events of every lane.
  void arrived(RequestId id, TimeNs at) {
    events_.try_push({.kind = Event::Kind::kArrive, .subject = place_of(id), .at = at});
  }
  void finished(Lane& lane, LaunchId launch, TimeNs at) {
    events_.try_push({Event::Kind::kFinish, lane.id(), launch, at});
  }
  // run: the events there are, unless somebody else is at it.
  void run(bool own_thread = false);
  void run_at_alarm();  // waits until the timer rings: what the executor's own thread does
  void ring();          // now

  // exclusively: a change, after all that was submitted before it; carries out what it decides.
  template <typename Change>
  auto exclusively(Change change);

  // Holder:
  LaneId add_lane(const sched::LaneSpec& spec, std::unique_ptr<Partition> partition);
  FamilyId add_family(const sched::FamilySpec& spec);
  TenantId add_tenant(const sched::TenantSpec& spec);
  void remove_tenant(TenantId tenant);
  FamilyFunctions& functions(FamilyId family);  // throws std::out_of_range
  void drop_all();                              // what waits, and all that still arrives
  // give_up: the server of this lane will not finish its launch. It may still be reading it.
  void give_up(Lane& lane, Outcome outcome, std::int32_t code);
  const sched::Stats& stats() const { return stats_; }
  std::uint64_t ended() const { return ended_; }  // and not yet retired

 private:
  struct Event {
    enum class Kind : std::uint8_t { kArrive, kFinish, kLost };
    Kind kind = Kind::kArrive;
    std::uint32_t subject = 0;  // request's place, or lane
    LaunchId launch = 0;
    TimeNs at = 0;
  };
  class Hold;

  bool run_events(std::uint32_t budget);
  void on_arrive(std::uint32_t place);
  void on_finish(const Event& event);
  void carry_out();
  void begin(const sched::Start& start);
  void lose(const sched::Start& start);
  void end(std::uint32_t place, Outcome outcome, std::int32_t code, TimeNs at);
  void end_launch(const Launch& launch, TimeNs at, Outcome forced, std::int32_t code);
  void count(const InFlight& request);
  void settle_round();
  void arm();
  bool serve_inline();

  Intake intake_;
  Ring<Event> events_;
  Baton baton_;
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

  Lanes lanes_;
  Families families_;
  std::atomic<Lane*> inline_{nullptr};  // set once, under the baton
  Completions completions_;
  Timeline timeline_;
  Timer timer_;
};

// The baton, as long as this lives; then, what others left behind meanwhile.
class Pump::Hold {
 public:
  explicit Hold(Pump& pump) : pump_(pump) { pump_.baton_.acquire(); }
  ~Hold() {
    pump_.settle_round();
    pump_.arm();
    pump_.baton_.release();
    pump_.run();
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  Pump& pump_;
};

template <typename Change>
auto Pump::exclusively(Change change) {
  const Hold hold(*this);
  while (run_events(~0u)) {
  }
  const Held held{scheduler_, now_, actions_};
  if constexpr (std::is_void_v<decltype(change(held))>) {
    change(held);
    carry_out();
  } else {
    auto result = change(held);
    carry_out();
    return result;
  }
}

}  // namespace st::rt
