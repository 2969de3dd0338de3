// pump.cpp: events into the scheduler, its actions out to lanes and callers. Token's holder only,
// but for pump, serve_inline and post_finish.
#include <algorithm>

#include "rt/executor.h"

namespace st::rt {
namespace {

constexpr std::uint32_t kBudget = 256;  // events a visiting thread runs before it hands over

// The outcomes after kOk and kFailed are the drop reasons, in their order.
constexpr Outcome outcome_of(sched::DropReason reason) {
  return static_cast<Outcome>(static_cast<std::uint8_t>(reason) + 2);
}
constexpr sched::DropReason reason_of(Outcome outcome) {
  return static_cast<sched::DropReason>(static_cast<std::uint8_t>(outcome) - 2);
}
static_assert(outcome_of(sched::DropReason::kDeadline) == Outcome::kDeadline);
static_assert(outcome_of(sched::DropReason::kClosed) == Outcome::kClosed);

}  // namespace

void Executor::pump(bool own_thread) {
  for (;;) {
    if (!token_.try_acquire()) return;
    const bool left_over = run_events(kBudget);
    token_.release();
    const bool served = serve_inline();
    if (left_over && !own_thread && !served) {
      // After the release: rung earlier, our thread could look for the token too early and leave.
      timer_.set(0);
      return;
    }
    if (events_.empty() && !rung_.load(std::memory_order_seq_cst)) return;
  }
}

// run_events: true if the budget ran out before the events did.
bool Executor::run_events(std::uint32_t budget) {
  if (rung_.load(std::memory_order_relaxed) && rung_.exchange(false)) armed_ = kNever;
  now_ = std::max(now_, now_ns());
  Event event;
  while (budget > 0 && events_.try_pop(event)) {
    --budget;
    now_ = std::max(now_, event.at);
    if (event.kind == Event::Kind::kArrive) {
      on_arrive(event.subject);
    } else {
      on_finish(event);
    }
  }
  if (!burst_.empty()) {
    scheduler_.arrive(burst_, now_, actions_);
    burst_.clear();
    carry_out();
  }
  if (scheduler_.next_wake() <= now_) {
    scheduler_.wake(now_, actions_);
    carry_out();
  }
  settle_round();
  arm();
  return budget == 0 && !events_.empty();
}

void Executor::on_arrive(std::uint32_t place) {
  InFlight& request = pool_[place];
  Tenant& tenant = tenants_[request.request.tenant];
  stats_.on_arrive(request.request.tenant);
  if (!dropping_ && !tenant.removed.load(std::memory_order_relaxed)) {
    burst_.push_back(request.request);
    return;
  }
  leave_room(tenant);
  end(place, dropping_ ? Outcome::kClosed : Outcome::kRemoved, 0, now_);
}

void Executor::on_finish(const Event& event) {
  Lane& lane = lanes_[event.subject];
  if (event.kind == Event::Kind::kFinish) {
    if (lane.abandoned()) return;  // its requests ended when it was
    end_launch(lane.launch(), lane.launch().finish_ns, Outcome::kOk, 0);
    lane.finished();
  }
  scheduler_.finish(event.launch, now_, actions_);
  carry_out();
}

void Executor::carry_out() {
  for (const sched::Drop& drop : actions_.drops) {
    leave_room(tenants_[drop.tenant]);
    end(place_of(drop.request), outcome_of(drop.reason), 0, now_);
  }
  for (const sched::Start& start : actions_.starts) {
    if (lanes_[start.lane].abandoned()) {
      lose(start);
    } else {
      begin(start);
    }
  }
  actions_.clear();
}

void Executor::begin(const sched::Start& start) {
  Lane& lane = lanes_[start.lane];
  Launch& launch = lane.launch();
  launch.begin(start, now_);
  launch.function = families_[start.family].on(start.lane);
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const InFlight& request = pool_[place_of(actions_.requests[start.first + i])];
    Tenant& tenant = tenants_[request.request.tenant];
    launch.add(request);
    const bool first = tenant.counted_in != start.launch;
    launch.distinct_tenants += first;
    stats_.on_begin(request.request.tenant, request.request.samples, first);
    tenant.counted_in = start.launch;
    leave_room(tenant);
  }
  stats_.on_start(start, launch.distinct_tenants);
  started_ = true;
  lane.offer();
}

// lose: the lane's server has gone; what the scheduler starts there fails.
void Executor::lose(const sched::Start& start) {
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const std::uint32_t place = place_of(actions_.requests[start.first + i]);
    leave_room(tenants_[pool_[place].request.tenant]);
    end(place, Outcome::kFailed, kLaneFailed, now_);
  }
  events_.try_push({Event::Kind::kLost, start.lane, start.launch, now_});
}

// end_launch: with the codes of its server, or all alike where the server did not get that far.
void Executor::end_launch(const Launch& launch, TimeNs at, Outcome forced, std::int32_t code) {
  const bool served = forced == Outcome::kOk;
  const std::size_t count = launch.requests.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t place = place_of(launch.requests[i]);
    Completion& end_of = pool_[place].end;
    end_of.start_ns = launch.start_ns;
    end_of.launch = launch.start.launch;
    end_of.lane = launch.start.lane;
    end_of.samples = launch.start.samples;
    end_of.tenants = launch.distinct_tenants;
    const std::int32_t got = served ? launch.codes[i] : code;
    end(place, served && got != 0 ? Outcome::kFailed : forced, got, at);
  }
  stats_.on_idle(launch.start.lane, at - launch.start_ns);
  if (!timeline_.on()) return;
  timeline_.add({.start_ns = launch.start_ns,
                 .finish_ns = at,
                 .id = launch.start.launch,
                 .lane = launch.start.lane,
                 .family = launch.start.family,
                 .tenant = launch.tenants.front(),
                 .bucket = launch.start.bucket,
                 .samples = launch.start.samples,
                 .requests = static_cast<std::uint32_t>(count),
                 .tenants = launch.distinct_tenants,
                 .outcome = forced});
}

// give_up: the server of this lane will not finish its launch. It may still be reading it.
void Executor::give_up(Lane& lane, Outcome outcome, std::int32_t code) {
  if (lane.abandoned()) return;
  const bool idle = lane.idle();
  lane.abandon();
  if (idle) return;
  end_launch(lane.launch(), now_, outcome, code);
  scheduler_.finish(lane.launch().start.launch, now_, actions_);
  carry_out();
}

void Executor::end(std::uint32_t place, Outcome outcome, std::int32_t code, TimeNs at) {
  InFlight& request = pool_[place];
  request.end.outcome = outcome;
  request.end.code = code;
  request.end.finish_ns = at;
  if (request.end.lane == kNone && timeline_.on()) {
    timeline_.add({.start_ns = request.end.arrival_ns,
                   .finish_ns = at,
                   .id = request.end.token,
                   .tenant = request.end.tenant,
                   .samples = request.request.samples,
                   .requests = 1,
                   .tenants = 1,
                   .outcome = outcome});
  }
  count(request);
  ++ended_;
  if (request.ending != nullptr) {
    Ending* ending = request.ending;
    const Completion last = request.end;
    pool_.give(place);
    ending->ended(last);
  } else if (request.ticket != nullptr) {
    Ticket* ticket = request.ticket;
    pool_.give(place);
    ticket->settle(outcome, 1);
  } else {
    completions_.push(place);
  }
}

void Executor::count(const InFlight& request) {
  const Completion& end = request.end;
  if (end.outcome == Outcome::kOk) {
    stats_.on_finish({.tenant = end.tenant,
                      .arrival = end.arrival_ns,
                      .deadline = request.request.deadline,
                      .started = end.start_ns,
                      .finished = end.finish_ns},
                     end.samples, end.tenants);
  } else if (end.outcome == Outcome::kFailed) {
    ++tenants_[end.tenant].failed;
  } else {
    stats_.on_drop(end.tenant, reason_of(end.outcome));
  }
}

// settle_round: what others wait for is told once a round, not once a request.
void Executor::settle_round() {
  completions_.announce();
  if (ended_ > 0 || started_) make_room();
  if (ended_ > 0) retire(ended_);
  ended_ = 0;
  started_ = false;
}

void Executor::arm() {
  const TimeNs wake = scheduler_.next_wake();
  if (wake >= armed_) return;
  armed_ = wake;
  timer_.set(wake);
}

// serve_inline: without lanes, the thread that has pumped runs the launch itself.
bool Executor::serve_inline() {
  Lane* lane = inline_.load(std::memory_order_acquire);  // published by open_inline_lane
  Launch* launch = lane == nullptr ? nullptr : lane->try_take();
  if (launch == nullptr) return false;
  launch->run_native();
  post_finish(*lane, launch->start.launch, launch->finish_ns);
  return true;
}

void Executor::post_finish(Lane& lane, LaunchId launch, TimeNs at) {
  events_.try_push({Event::Kind::kFinish, lane.id(), launch, at});
}

}  // namespace st::rt
