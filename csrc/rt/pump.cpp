#include "rt/pump.h"

#include <algorithm>
#include <stdexcept>
#include <string>

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

Pump::Pump(const sched::Policy& policy, std::uint32_t capacity, std::size_t timeline,
           std::size_t record)
    : intake_(capacity),
      events_(std::size_t{capacity} + 2 * kMostLanes),
      scheduler_(policy, record),
      completions_(intake_.requests()),
      timeline_(timeline) {}

void Pump::run(bool own_thread) {
  for (;;) {
    if (!baton_.try_acquire()) return;
    const bool left_over = run_events(kBudget);
    baton_.release();
    const bool served = serve_inline();
    if (left_over && !own_thread && !served) {
      // After the release: rung earlier, our thread could look for the baton too early and leave.
      ring();
      return;
    }
    if (events_.empty() && !rung_.load(std::memory_order_seq_cst)) return;
  }
}

// run_events: true if the budget ran out before the events did.
bool Pump::run_events(std::uint32_t budget) {
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

void Pump::on_arrive(std::uint32_t place) {
  InFlight& request = intake_.requests()[place];
  Tenant& tenant = intake_.tenants()[request.request.tenant];
  stats_.on_arrive(request.request.tenant);
  if (!dropping_ && !tenant.removed.load(std::memory_order_relaxed)) {
    burst_.push_back(request.request);
    return;
  }
  intake_.leave_room(tenant);
  end(place, dropping_ ? Outcome::kClosed : Outcome::kRemoved, 0, now_);
}

void Pump::on_finish(const Event& event) {
  Lane& lane = lanes_[event.subject];
  if (event.kind == Event::Kind::kFinish) {
    if (lane.abandoned()) return;  // its requests ended when it was
    end_launch(lane.launch(), lane.launch().finish_ns, Outcome::kOk, 0);
    lane.finished();
  }
  scheduler_.finish(event.launch, now_, actions_);
  carry_out();
}

void Pump::carry_out() {
  for (const sched::Drop& drop : actions_.drops) {
    intake_.leave_room(intake_.tenants()[drop.tenant]);
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

void Pump::begin(const sched::Start& start) {
  Lane& lane = lanes_[start.lane];
  Launch& launch = lane.launch();
  launch.begin(start, now_);
  launch.function = families_[start.family].on(start.lane);
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const InFlight& request = intake_.requests()[place_of(actions_.requests[start.first + i])];
    Tenant& tenant = intake_.tenants()[request.request.tenant];
    launch.add(request);
    const bool first = tenant.counted_in != start.launch;
    launch.distinct_tenants += first;
    stats_.on_begin(request.request.tenant, request.request.samples, first);
    tenant.counted_in = start.launch;
    intake_.leave_room(tenant);
  }
  stats_.on_start(start, launch.distinct_tenants);
  started_ = true;
  lane.offer();
}

// lose: the lane's server has gone; what the scheduler starts there fails.
void Pump::lose(const sched::Start& start) {
  for (std::uint32_t i = 0; i < start.count; ++i) {
    const std::uint32_t place = place_of(actions_.requests[start.first + i]);
    intake_.leave_room(intake_.tenants()[intake_.requests()[place].request.tenant]);
    end(place, Outcome::kFailed, kLaneFailed, now_);
  }
  events_.try_push({Event::Kind::kLost, start.lane, start.launch, now_});
}

// end_launch: with the codes of its server, or all alike where the server did not get that far.
void Pump::end_launch(const Launch& launch, TimeNs at, Outcome forced, std::int32_t code) {
  const bool served = forced == Outcome::kOk;
  const std::size_t count = launch.requests.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t place = place_of(launch.requests[i]);
    Completion& end_of = intake_.requests()[place].end;
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

void Pump::give_up(Lane& lane, Outcome outcome, std::int32_t code) {
  if (lane.abandoned()) return;
  const bool idle = lane.idle();
  lane.abandon();
  if (idle) return;
  end_launch(lane.launch(), now_, outcome, code);
  scheduler_.finish(lane.launch().start.launch, now_, actions_);
  carry_out();
}

void Pump::end(std::uint32_t place, Outcome outcome, std::int32_t code, TimeNs at) {
  InFlight& request = intake_.requests()[place];
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
    intake_.requests().give(place);
    ending->ended(last);
  } else if (request.ticket != nullptr) {
    Ticket* ticket = request.ticket;
    intake_.requests().give(place);
    ticket->settle(outcome, 1);
  } else {
    completions_.push(place);
  }
}

void Pump::count(const InFlight& request) {
  const Completion& end = request.end;
  if (end.outcome == Outcome::kOk) {
    stats_.on_finish({.tenant = end.tenant,
                      .arrival = end.arrival_ns,
                      .deadline = request.request.deadline,
                      .started = end.start_ns,
                      .finished = end.finish_ns},
                     end.samples, end.tenants);
  } else if (end.outcome == Outcome::kFailed) {
    ++intake_.tenants()[end.tenant].failed;
  } else {
    stats_.on_drop(end.tenant, reason_of(end.outcome));
  }
}

// settle_round: what others wait for is told once a round, not once a request.
void Pump::settle_round() {
  completions_.announce();
  if (ended_ > 0 || started_) intake_.make_room();
  if (ended_ > 0) intake_.retire(ended_);
  ended_ = 0;
  started_ = false;
}

void Pump::arm() {
  const TimeNs wake = scheduler_.next_wake();
  if (wake >= armed_) return;
  armed_ = wake;
  timer_.set(wake);
}

// serve_inline: without lanes, the thread that has pumped runs the launch itself.
bool Pump::serve_inline() {
  Lane* lane = inline_lane();
  Launch* launch = lane == nullptr ? nullptr : lane->try_take();
  if (launch == nullptr) return false;
  launch->run_native();
  finished(*lane, launch->start.launch, launch->finish_ns);
  return true;
}

void Pump::run_at_alarm() {
  timer_.wait();
  rung_.store(true, std::memory_order_seq_cst);  // before the baton: see baton.h
  run(true);
}

void Pump::ring() { timer_.set(0); }

// ---- changes, by the baton's holder ---------------------------------------------------------

LaneId Pump::add_lane(const sched::LaneSpec& spec, std::unique_ptr<Partition> partition) {
  const LaneId id = scheduler_.add_lane(spec);
  stats_.add_lane();
  lanes_.add(std::make_unique<Lane>(id, std::move(partition)));
  return id;
}

FamilyId Pump::add_family(const sched::FamilySpec& spec) {
  const FamilyId id = scheduler_.add_family(spec);
  families_.add(std::make_unique<FamilyFunctions>());
  return id;
}

TenantId Pump::add_tenant(const sched::TenantSpec& spec) {
  if (lanes_.size() == 0) {
    const LaneId only = add_lane({}, nullptr);
    inline_.store(&lanes_[only], std::memory_order_release);  // publishes the lane
  }
  const TenantId id = scheduler_.add_tenant(spec);
  auto tenant = std::make_unique<Tenant>();
  tenant->limit = spec.queue_limit;
  stats_.add_tenant();
  intake_.tenants().add(std::move(tenant));
  return id;
}

void Pump::remove_tenant(TenantId id) {
  if (intake_.tenant(id).removed.exchange(true)) {
    throw std::out_of_range("tenant: " + std::to_string(id) + " does not exist");
  }
  scheduler_.remove_tenant(id, now_, actions_);
  started_ = true;  // wakes submitters that wait for its room
}

FamilyFunctions& Pump::functions(FamilyId id) {
  FamilyFunctions* functions = families_.find(id);
  if (functions == nullptr) {
    throw std::out_of_range("family: " + std::to_string(id) + " does not exist");
  }
  return *functions;
}

void Pump::drop_all() {
  dropping_ = true;
  scheduler_.drop_all(now_, actions_);
}

}  // namespace st::rt
