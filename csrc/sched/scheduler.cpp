#include "sched/scheduler.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "sched/facts.h"
#include "sched/fill.h"
#include "sched/order.h"
#include "sched/queues.h"
#include "sched/route.h"
#include "sched/running.h"
#include "sched/straggler.h"

namespace st::sched {

struct Scheduler::State {
  explicit State(const Policy& policy)
      : facts(policy), queues(facts), order(facts, queues), stragglers(facts) {}

  LaneId route(TenantId tenant, std::uint32_t samples, std::int32_t level, TimeNs deadline,
               TimeNs now);
  bool admit(const Request& request, TimeNs now, Actions& out);
  void drop(std::uint32_t slot, DropReason reason, Actions& out);
  void expire(TimeNs now, Actions& out);
  void settle(TimeNs now, Actions& out);
  bool serve(LaneId lane, TimeNs now, Actions& out);
  bool borrow(LaneId lane, TimeNs now, Actions& out);
  void launch(LaneId owner, LaneId runner, const Pick& pick, TimeNs now, Actions& out);
  void observe(LaneId lane, TimeNs now);
  void move(TenantId tenant, TimeNs now);
  void requeue(TenantId tenant, TimeNs now);
  void put_back(TenantId tenant, TimeNs now);

  Facts facts;
  Queues queues;
  Orderer order;
  Stragglers stragglers;
  Router router;
  std::vector<Running> running;   // by lane
  std::vector<TimeNs> holds;      // by lane: when a free lane has to look again
  std::vector<Waiting> lifted;    // scratch
  std::vector<TenantId> changed;  // scratch
  std::uint32_t busy = 0;
  LaunchId next_launch = 1;
  bool closed = false;
};

// ---- set-up ---------------------------------------------------------------------------------

Scheduler::Scheduler(const Policy& policy) : state_(std::make_unique<State>(policy)) {}
Scheduler::~Scheduler() = default;

LaneId Scheduler::add_lane(const LaneSpec& spec) {
  const LaneId lane = state_->facts.add_lane(spec);
  state_->queues.add_lane();
  state_->order.add_lane();
  state_->running.emplace_back();
  state_->holds.push_back(kNever);
  return lane;
}

FamilyId Scheduler::add_family(const FamilySpec& spec) {
  const FamilyId family = state_->facts.add_family(spec);
  state_->queues.add_family(family);
  state_->stragglers.add_family();
  return family;
}

TenantId Scheduler::add_tenant(const TenantSpec& spec) {
  const TenantId tenant = state_->facts.add_tenant(spec);
  state_->queues.add_tenant(tenant);
  state_->stragglers.add_tenant();
  state_->router.add_tenant();
  return tenant;
}

void Scheduler::set_duty(LaneId lane, std::vector<DutyTurn> turns) {
  state_->facts.check_turns(lane, turns);
  state_->queues.set_cycle(lane, turns);
  state_->order.set_cycle(lane, std::move(turns));
}

void Scheduler::set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
  state_->facts.set_latency(family, lane, bucket, latency_ns);
  state_->queues.recount(lane, family);
}

// ---- changes under way ----------------------------------------------------------------------

void Scheduler::set_routes(TenantId tenant, Routes routes, bool move, TimeNs now, Actions& out) {
  state_->facts.set_routes(tenant, std::move(routes));
  state_->expire(now, out);
  state_->router.forget(tenant);
  if (move) state_->requeue(tenant, now);
  state_->settle(now, out);
}

void Scheduler::set_batch(FamilyId family, LaneId lane, std::uint32_t samples, TimeNs now,
                          Actions& out) {
  state_->facts.set_batch(family, lane, samples);
  state_->queues.recount(lane, family);
  wake(now, out);
}

void Scheduler::close_lane(LaneId lane) {
  state_->facts.check_open(lane, "close_lane.lane");
  if (state_->queues.lane(lane).count > 0) {
    throw std::invalid_argument("close_lane.lane: is not drained, requests wait there");
  }
  state_->facts.close_lane(lane);
  state_->holds[lane] = kNever;
}

// ---- events ---------------------------------------------------------------------------------

void Scheduler::arrive(const Request& request, TimeNs now, Actions& out) {
  arrive(std::span(&request, 1), now, out);
}

void Scheduler::arrive(std::span<const Request> requests, TimeNs now, Actions& out) {
  state_->expire(now, out);
  for (const Request& request : requests) {
    if (!state_->admit(request, now, out)) continue;
    const std::uint32_t samples = std::max(request.samples, 1u);
    const std::int32_t level = state_->queues.level_of(request);
    state_->queues.put(request,
                       state_->route(request.tenant, samples, level, request.deadline, now));
  }
  state_->settle(now, out);
}

bool Scheduler::cancel(RequestId request, TimeNs now, Actions& out) {
  state_->expire(now, out);
  const std::uint32_t slot = state_->queues.find(request);
  if (slot != kNone) state_->drop(slot, DropReason::kCancelled, out);
  state_->settle(now, out);
  return slot != kNone;
}

void Scheduler::finish(LaunchId launch, TimeNs now, Actions& out) {
  state_->expire(now, out);
  const auto found = std::find_if(state_->running.begin(), state_->running.end(),
                                  [launch](const Running& r) { return r.launch == launch; });
  if (launch == 0 || found == state_->running.end()) return;
  found->launch = 0;
  --state_->busy;
  state_->observe(static_cast<LaneId>(found - state_->running.begin()), now);
  found->shares.clear();
  state_->settle(now, out);
}

void Scheduler::wake(TimeNs now, Actions& out) {
  state_->expire(now, out);
  state_->settle(now, out);
}

void Scheduler::remove_tenant(TenantId tenant, TimeNs now, Actions& out) {
  state_->expire(now, out);
  if (!state_->facts.alive(tenant)) return;
  state_->facts.bury(tenant);
  state_->lifted.clear();
  state_->queues.lift(tenant, state_->lifted);
  for (const Waiting& w : state_->lifted) out.drops.push_back({w.id, tenant, DropReason::kRemoved});
  state_->stragglers.forget(tenant);
  state_->settle(now, out);
}

void Scheduler::drop_all(TimeNs now, Actions& out) {
  state_->expire(now, out);
  state_->closed = true;
  state_->lifted.clear();
  state_->queues.lift(kNone, state_->lifted);
  for (const Waiting& w : state_->lifted) {
    out.drops.push_back({w.id, w.tenant, DropReason::kClosed});
  }
  std::fill(state_->holds.begin(), state_->holds.end(), kNever);
}

// ---- questions ------------------------------------------------------------------------------

TimeNs Scheduler::next_wake() const {
  TimeNs wake = state_->queues.next_deadline();
  for (const TimeNs hold : state_->holds) wake = std::min(wake, hold);
  return wake;
}

std::uint64_t Scheduler::waiting() const { return state_->queues.count(); }
std::uint64_t Scheduler::running() const { return state_->busy; }

std::uint64_t Scheduler::load(LaneId lane) const {
  state_->facts.check_lane(lane, "load.lane");
  return state_->queues.lane(lane).count + (state_->running[lane].busy() ? 1 : 0);
}

bool Scheduler::straggling(TenantId tenant) const {
  return state_->facts.alive(tenant) && state_->stragglers.solo(tenant);
}

TimeNs Scheduler::predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) const {
  state_->facts.check_ids(family, lane);
  return state_->facts.predicted_ns(family, lane, samples);
}

// ---- decisions ------------------------------------------------------------------------------

LaneId Scheduler::State::route(TenantId tenant, std::uint32_t samples, std::int32_t level,
                               TimeNs deadline, TimeNs now) {
  const LaneId away = facts.policy().straggler_lane;
  if (away != kNone && stragglers.solo(tenant) &&
      facts.eligible(facts.tenant(tenant).family, away)) {
    return away;
  }
  return router.choose({facts, queues, running}, tenant, samples, level, deadline, now);
}

bool Scheduler::State::admit(const Request& request, TimeNs now, Actions& out) {
  const auto refuse = [&](DropReason reason) {
    out.drops.push_back({request.id, request.tenant, reason});
    return false;
  };
  if (closed) return refuse(DropReason::kClosed);
  if (!facts.alive(request.tenant)) return refuse(DropReason::kRemoved);
  if (request.deadline <= now) return refuse(DropReason::kDeadline);
  if (queues.count(request.tenant) >= facts.tenant(request.tenant).queue_limit) {
    return refuse(DropReason::kQueueFull);
  }
  return true;
}

void Scheduler::State::drop(std::uint32_t slot, DropReason reason, Actions& out) {
  const Waiting waiting = queues.take(slot);
  out.drops.push_back({waiting.id, waiting.tenant, reason});
}

void Scheduler::State::expire(TimeNs now, Actions& out) {
  for (std::uint32_t slot = queues.expired(now); slot != kNone; slot = queues.expired(now)) {
    drop(slot, DropReason::kDeadline, out);
  }
}

// settle: every free lane starts what is due. Own work first on every lane, then borrowed work.
void Scheduler::State::settle(TimeNs now, Actions& out) {
  const auto lanes = static_cast<LaneId>(running.size());
  if (busy == lanes) return;
  for (LaneId lane = 0; lane < lanes; ++lane) {
    if (running[lane].busy()) continue;
    holds[lane] = kNever;
    if (queues.lane(lane).count > 0) serve(lane, now, out);
  }
  if (!facts.any_shares() || busy == 0) return;
  for (LaneId lane = 0; lane < lanes && queues.count() > 0; ++lane) {
    if (running[lane].busy() || queues.lane(lane).count > 0) continue;
    borrow(lane, now, out);
  }
}

bool Scheduler::State::serve(LaneId lane, TimeNs now, Actions& out) {
  const std::optional<Pick> pick = order.next(lane, lane, now, holds[lane]);
  if (pick) launch(lane, lane, *pick, now, out);
  return pick.has_value();
}

// borrow: one launch that `lane` may run of the busy lane on which the highest level waits, of
// those the one with the most predicted waiting work.
bool Scheduler::State::borrow(LaneId lane, TimeNs now, Actions& out) {
  LaneId owner = kNone;
  std::optional<Pick> best;
  std::pair<std::int32_t, TimeNs> most;
  for (const LaneId other : facts.sharing(lane)) {
    const LaneQueues& work = queues.lane(other);
    if (!running[other].busy() || work.count == 0 || !facts.shares(other, lane)) continue;
    const std::pair offered(work.levels.highest(), work.work_ns);
    if (owner != kNone && offered <= most) continue;
    const std::optional<Pick> pick = order.next(other, lane, now, holds[lane]);
    if (!pick) continue;
    owner = other;
    best = pick;
    most = offered;
  }
  if (best) launch(owner, lane, *best, now, out);
  return best.has_value();
}

void Scheduler::State::launch(LaneId owner, LaneId runner, const Pick& pick, TimeNs now,
                              Actions& out) {
  Running& slot = running[runner];
  const Queue& queue = queues.queue(owner, pick.queue);
  Start start;
  start.first = static_cast<std::uint32_t>(out.requests.size());
  start.samples = fill(facts, queues, {owner, runner, now}, pick, slot, out);
  start.count = static_cast<std::uint32_t>(out.requests.size()) - start.first;
  start.launch = next_launch++;
  start.lane = runner;
  start.family = queue.family;
  start.bucket = facts.bucket(queue.family, start.samples);
  start.predicted_ns = queues.predicted_ns(queue, runner, start.samples);
  slot.launch = start.launch;
  slot.family = queue.family;
  slot.owner = owner;
  slot.solo = queue.solo;
  slot.samples = start.samples;
  slot.started = now;
  slot.base_ns = facts.base_ns(queue.family, runner, start.samples);
  slot.predicted_end = now + start.predicted_ns;
  order.took(owner, pick);
  holds[runner] = kNever;
  ++busy;
  out.starts.push_back(start);
}

// observe: what a finished launch teaches: its tenants' service, predictions, stragglers.
void Scheduler::State::observe(LaneId lane, TimeNs now) {
  const Running& done = running[lane];
  const TimeNs took = std::max<TimeNs>(now - done.started, 0);
  if (facts.policy().order == Order::kFair) {
    for (const Share& share : done.shares) {
      const double used = static_cast<double>(took) * share.samples / done.samples;
      queues.charge(done.owner, share.tenant, used - share.charged);
    }
  }
  if (done.base_ns == 0) return;
  const double ratio = static_cast<double>(took) / static_cast<double>(done.base_ns);
  if (done.solo == kNone) {
    facts.learn(done.family, lane, ratio);
    queues.reprice(lane, done.family);
  }
  changed.clear();
  stragglers.observe(done, ratio, changed);
  for (const TenantId tenant : changed) move(tenant, now);
  if (done.solo != kNone && stragglers.solo(done.solo)) {
    queues.set_slowdown(done.solo, std::max(stragglers.ratio(done.solo), 1.0));
  }
}

// move: a tenant left its family or came back: what it has waiting queues anew, in its old order.
void Scheduler::State::move(TenantId tenant, TimeNs now) {
  lifted.clear();
  queues.lift(tenant, lifted);
  stragglers.solo(tenant) ? queues.solo(tenant) : queues.fuse(tenant);
  put_back(tenant, now);
}

// requeue: its routes changed, and what waits goes along.
void Scheduler::State::requeue(TenantId tenant, TimeNs now) {
  lifted.clear();
  queues.lift(tenant, lifted);
  put_back(tenant, now);
}

void Scheduler::State::put_back(TenantId tenant, TimeNs now) {
  for (const Waiting& waiting : lifted) {
    queues.put_back(waiting, route(tenant, waiting.samples, waiting.level, waiting.deadline, now));
  }
}

}  // namespace st::sched
