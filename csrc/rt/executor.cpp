#include "rt/executor.h"

#include <pthread.h>

#include <algorithm>
#include <future>
#include <stdexcept>
#include <string>

namespace st::rt {
namespace {

constexpr std::uint32_t kChunk = 64;    // requests a bulk pushes before it lets events be run
constexpr TimeNs kPollNs = 50'000'000;  // how often a waiting close() lets its caller look around

std::atomic<int> forks{0};  // of this process and its ancestors since the library was loaded

void count_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  (void)registered;
}

}  // namespace

std::shared_ptr<Executor> Executor::open(const Options& options, std::shared_ptr<Backend> backend) {
  auto executor = std::make_shared<Executor>(options, std::move(backend));
  executor->timekeeper_ = std::thread([executor] { executor->keep_time(); });
  Executor* handle = executor.get();
  return {handle, [executor](Executor*) {
            if (executor->forked()) {
              // Its threads stayed in the parent: nothing here can be joined or destroyed.
              new std::shared_ptr<Executor>(executor);
              return;
            }
            executor->close(false, after(1'000'000'000));
          }};
}

Executor::Executor(const Options& options, std::shared_ptr<Backend> backend)
    : process_((count_forks(), forks.load())),
      backend_(std::move(backend)),
      pump_(options.policy, options.capacity, options.timeline, options.record) {
  if (options.capacity == 0) throw std::invalid_argument("capacity: must be at least 1");
}

bool Executor::forked() const { return process_ != forks.load(std::memory_order_relaxed); }

LaneId Executor::add_lane(const std::vector<std::uint32_t>& units, bool borrows, bool native,
                          int priority, std::uint32_t pool) {
  auto partition = backend_->open(units, priority);
  const LaneId id = pump_.exclusively([&](const Pump::Held& held) {
    refuse_if_closed();
    if (runs_inline()) {
      throw std::logic_error("lane: this executor runs inline; add lanes before the first tenant");
    }
    const std::uint32_t granted = partition->units();
    const LaneId next = pump_.add_lane({granted, borrows, pool}, std::move(partition));
    held.scheduler.wake(held.now, held.out);
    return next;
  });
  if (native) start_server(lane(id));
  return id;
}

void Executor::close_lane(LaneId id) {
  pump_.exclusively([&](const Pump::Held& held) {
    held.scheduler.close_lane(id);
    lane(id).close();
  });
}

void Executor::refuse_if_closed() const {
  if (!pump_.intake().accepting()) throw Closed("the executor is closed");
}

FamilyId Executor::add_family(const sched::FamilySpec& spec) {
  return pump_.exclusively([&](const Pump::Held&) { return pump_.add_family(spec); });
}

TenantId Executor::add_tenant(const sched::TenantSpec& spec) {
  return pump_.exclusively([&](const Pump::Held&) { return pump_.add_tenant(spec); });
}

void Executor::remove_tenant(TenantId id) {
  pump_.exclusively([&](const Pump::Held&) { pump_.remove_tenant(id); });
}

void Executor::set_native(FamilyId id, Native native, LaneId lane) {
  pump_.exclusively([&](const Pump::Held&) {
    FamilyFunctions& family = pump_.functions(id);
    if (lane == kNone) {
      family.any = native.function;
    } else {
      this->lane(lane);  // throws where there is none
      family.by_lane.resize(std::max<std::size_t>(family.by_lane.size(), lane + 1));
      family.by_lane[lane] = native.function;
    }
    family.natives.push_back(std::move(native));
  });
}

void Executor::set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
  pump_.exclusively([&](const Pump::Held& held) {
    held.scheduler.set_latency(family, lane, bucket, latency_ns);
  });
}

void Executor::set_duty(LaneId lane, std::vector<sched::DutyTurn> turns) {
  pump_.exclusively(
      [&](const Pump::Held& held) { held.scheduler.set_duty(lane, std::move(turns)); });
}

void Executor::set_routes(TenantId id, sched::Routes routes, bool move) {
  pump_.exclusively([&](const Pump::Held& held) {
    if (pump_.intake().tenant(id).removed.load(std::memory_order_relaxed)) {
      throw std::out_of_range("tenant: " + std::to_string(id) + " does not exist");
    }
    held.scheduler.set_routes(id, std::move(routes), move, held.now, held.out);
  });
}

void Executor::set_batch(FamilyId family, LaneId lane, std::uint32_t samples) {
  pump_.exclusively([&](const Pump::Held& held) {
    held.scheduler.set_batch(family, lane, samples, held.now, held.out);
  });
}

std::uint64_t Executor::load(LaneId lane) {
  return pump_.exclusively([&](const Pump::Held& held) { return held.scheduler.load(lane); });
}

TimeNs Executor::predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) {
  return pump_.exclusively(
      [&](const Pump::Held& held) { return held.scheduler.predicted_ns(family, lane, samples); });
}

bool Executor::straggling(TenantId tenant) {
  return pump_.exclusively(
      [&](const Pump::Held& held) { return held.scheduler.straggling(tenant); });
}

Counters Executor::counters() {
  return pump_.exclusively([&](const Pump::Held& held) {
    Counters counters{.stats = pump_.stats(),
                      .failed = {},
                      .refused = {},
                      .in_flight = pump_.intake().in_flight() - pump_.ended(),
                      .waiting = held.scheduler.waiting(),
                      .running = held.scheduler.running(),
                      .timeline_lost = pump_.timeline().lost()};
    const Intake::Tenants& tenants = pump_.intake().tenants();
    for (TenantId id = 0; id < tenants.size(); ++id) {
      counters.failed.push_back(tenants[id].failed);
      counters.refused.push_back(tenants[id].refused.load(std::memory_order_relaxed));
    }
    return counters;
  });
}

Refusal Executor::submit(const Submission& submission, RequestId& id) {
  const TimeNs now = now_ns();
  const Refusal refusal = pump_.intake().accept(submission, now, id);
  if (refusal == Refusal::kNone) {
    pump_.arrived(id, now);
    pump_.run();
  }
  return refusal;
}

bool Executor::submit_some(Bulk& bulk, TimeNs until) {
  Intake& intake = pump_.intake();
  bulk.each.ticket = bulk.ticket.get();
  TimeNs now = now_ns();
  for (std::uint32_t pushed = 0; bulk.next < bulk.count;) {
    bulk.each.tenant = bulk.tenants[bulk.next % bulk.tenants.size()];
    bulk.each.deadline = bulk.deadline_ns >= kNever - now ? kNever : now + bulk.deadline_ns;
    RequestId id = 0;
    const Refusal refusal = intake.accept(bulk.each, now, id);
    const bool full = wants_room(refusal);
    if (refusal == Refusal::kNone) pump_.arrived(id, now);
    if (refusal == Refusal::kClosed) {
      refuse_rest(bulk, Outcome::kClosed);
    } else if (!full || !bulk.block) {
      if (full) bulk.ticket->settle(Outcome::kQueueFull, 1);
      if (refusal == Refusal::kRemoved) bulk.ticket->settle(Outcome::kRemoved, 1);
      ++bulk.next;
      ++bulk.each.token;
    }
    if (++pushed % kChunk != 0 && !(full && bulk.block)) continue;
    pump_.run();
    if (full && bulk.block) intake.wait_for_room(intake.tenant(bulk.each.tenant), until);
    now = now_ns();
    if (now >= until) return bulk.next == bulk.count;
  }
  pump_.run();
  return true;
}

void Executor::refuse_rest(Bulk& bulk, Outcome outcome) {
  bulk.ticket->settle(outcome, bulk.count - bulk.next);
  bulk.next = bulk.count;
}

bool Executor::cancel(RequestId id) {
  return pump_.exclusively(
      [&](const Pump::Held& held) { return held.scheduler.cancel(id, held.now, held.out); });
}

bool Executor::completions(std::vector<Completion>& out, std::size_t most, TimeNs until) {
  const bool more = pump_.completions().drain(out, most, until);
  pump_.intake().make_room();
  return more;
}

std::string Executor::recording() {
  std::string recording =
      pump_.exclusively([](const Pump::Held& held) { return held.scheduler.recording(); });
  if (!recording.empty()) tape::seal(recording);
  return recording;
}

Lane& Executor::lane(LaneId id) {
  Lane* lane = pump_.lanes().find(id);
  if (lane == nullptr) throw std::out_of_range("lane: " + std::to_string(id) + " does not exist");
  return *lane;
}

Launch* Executor::take(LaneId id, TimeNs until) {
  Lane& from = lane(id);
  for (;;) {
    Launch* launch = from.take(until);
    if (launch == nullptr || !launch->function) return launch;
    launch->run_native();
    pump_.finished(from, launch->start.launch, launch->finish_ns);
    pump_.run();
  }
}

bool Executor::finish(LaneId id, LaunchId launch, std::span<const std::int32_t> codes) {
  Lane& from = lane(id);
  if (!from.finish(launch, codes)) return false;
  pump_.finished(from, launch, from.launch().finish_ns);
  pump_.run();
  return true;
}

void Executor::fail(LaneId id) {
  Lane& lost = lane(id);
  pump_.exclusively([&](const Pump::Held&) { pump_.give_up(lost, Outcome::kFailed, kLaneFailed); });
}

void Executor::start_server(Lane& lane) {
  std::promise<void> entered;
  const std::lock_guard lock(threads_mutex_);
  refuse_if_closed();
  servers_.emplace_back(&lane, std::thread([self = shared_from_this(), &lane, &entered] {
    try {
      lane.partition()->enter();
      entered.set_value();
    } catch (...) {
      entered.set_exception(std::current_exception());
      return;
    }
    self->serve(lane);
  }));
  try {
    entered.get_future().get();
  } catch (...) {
    servers_.back().second.join();  // it holds this executor, and with it the device
    servers_.pop_back();
    fail(lane.id());
    throw;
  }
}

void Executor::serve(Lane& lane) {
  const std::string name = "st-lane-" + std::to_string(lane.id());
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  while (Launch* launch = lane.take(kNever)) {
    launch->run_native();
    pump_.finished(lane, launch->start.launch, launch->finish_ns);
    pump_.run();
  }
  lane.partition()->leave();
}

void Executor::keep_time() {
  pthread_setname_np(pthread_self(), "st-executor");
  while (!stopping_.load(std::memory_order_acquire)) {
    pump_.run_at_alarm();
  }
}

bool Executor::close(bool drain, TimeNs until, const std::function<void()>& poll) {
  pump_.intake().shut();
  if (!drain) drop_waiting();
  if (!wait_idle(until, poll)) {
    drop_waiting();
    abandon_running();
  }
  stop();
  const std::lock_guard lock(threads_mutex_);
  return clean_;
}

bool Executor::wait_idle(TimeNs until, const std::function<void()>& poll) {
  for (;;) {
    const TimeNs slice = poll ? std::min(until, after(kPollNs)) : until;
    if (pump_.intake().wait_idle(slice)) return true;
    if (now_ns() >= until) return false;
    poll();
  }
}

void Executor::drop_waiting() {
  pump_.exclusively([&](const Pump::Held&) { pump_.drop_all(); });
}

void Executor::abandon_running() {
  pump_.exclusively([&](const Pump::Held&) {
    for (LaneId id = 0; id < lanes(); ++id) pump_.give_up(lane(id), Outcome::kClosed, 0);
  });
  const std::lock_guard lock(threads_mutex_);
  clean_ = false;
}

// stop: nothing is in flight any more. A dispatcher whose launch was given up may never return
// from it: it keeps the executor's memory alive and is left to itself.
void Executor::stop() {
  const std::lock_guard lock(threads_mutex_);
  if (stopped_) return;
  stopped_ = true;
  pump_.exclusively([&](const Pump::Held&) {  // a lane is added before this, or refused
    for (LaneId id = 0; id < lanes(); ++id) lane(id).close();
  });
  for (auto& [lane, server] : servers_) lane->abandoned() ? server.detach() : server.join();
  stopping_.store(true, std::memory_order_release);
  pump_.exclusively([&](const Pump::Held&) { pump_.ring(); });
  timekeeper_.join();
  pump_.completions().close();
}

}  // namespace st::rt
