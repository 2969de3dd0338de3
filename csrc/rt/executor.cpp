// executor.cpp: the executor's threads, its control while running, and its end.
#include "rt/executor.h"

#include <pthread.h>

#include <algorithm>
#include <future>
#include <stdexcept>
#include <string>

namespace st::rt {
namespace {

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
      pool_(options.capacity),
      events_(std::size_t{options.capacity} + 2 * kMostLanes),
      scheduler_(options.policy, options.record),
      completions_(pool_),
      timeline_(options.timeline) {
  if (options.capacity == 0) throw std::invalid_argument("capacity: must be at least 1");
}

bool Executor::forked() const { return process_ != forks.load(std::memory_order_relaxed); }

// exclusively: a change to the scheduler, after all that was submitted before it.
template <typename Change>
auto Executor::exclusively(Change change) {
  struct Hold {
    Executor& executor;
    explicit Hold(Executor& e) : executor(e) { executor.token_.acquire(); }
    ~Hold() {
      executor.settle_round();
      executor.arm();
      executor.token_.release();
      executor.pump();
    }
  };
  const Hold hold(*this);
  while (run_events(~0u)) {
  }
  return change();
}

LaneId Executor::add_lane(const std::vector<std::uint32_t>& units, bool borrows, bool native,
                          int priority, std::uint32_t pool) {
  auto partition = backend_->open(units, priority);
  const LaneId id = exclusively([&] {
    refuse_if_closed();
    if (inline_.load() != nullptr) {
      throw std::logic_error("lane: this executor runs inline; add lanes before the first tenant");
    }
    const LaneId next = scheduler_.add_lane({partition->units(), borrows, pool});
    stats_.add_lane();
    lanes_.add(std::make_unique<Lane>(next, std::move(partition)));
    scheduler_.wake(now_, actions_);
    carry_out();
    return next;
  });
  if (native) start_server(lanes_[id]);
  return id;
}

void Executor::close_lane(LaneId id) {
  exclusively([&] {
    scheduler_.close_lane(id);
    lanes_[id].close();
  });
}

void Executor::refuse_if_closed() const {
  if (!accepting_.load(std::memory_order_seq_cst)) throw Closed("the executor is closed");
}

void Executor::open_inline_lane() {
  auto lane = std::make_unique<Lane>(scheduler_.add_lane({}), nullptr);
  stats_.add_lane();
  inline_.store(lane.get(), std::memory_order_release);  // publishes the lane
  lanes_.add(std::move(lane));
}

FamilyId Executor::add_family(const sched::FamilySpec& spec) {
  return exclusively([&] {
    const FamilyId id = scheduler_.add_family(spec);
    families_.add(std::make_unique<Family>());
    return id;
  });
}

TenantId Executor::add_tenant(const sched::TenantSpec& spec) {
  return exclusively([&] {
    if (lanes_.size() == 0) open_inline_lane();
    const TenantId id = scheduler_.add_tenant(spec);
    auto tenant = std::make_unique<Tenant>();
    tenant->limit = spec.queue_limit;
    stats_.add_tenant();
    tenants_.add(std::move(tenant));
    return id;
  });
}

void Executor::remove_tenant(TenantId id) {
  exclusively([&] {
    Tenant* tenant = tenants_.find(id);
    if (tenant == nullptr || tenant->removed.exchange(true)) {
      throw std::out_of_range("tenant: " + std::to_string(id) + " does not exist");
    }
    scheduler_.remove_tenant(id, now_, actions_);
    carry_out();
    started_ = true;  // wakes submitters that wait for its room
  });
}

void Executor::set_native(FamilyId id, Native native, LaneId lane) {
  exclusively([&] {
    Family* family = families_.find(id);
    if (family == nullptr) {
      throw std::out_of_range("family: " + std::to_string(id) + " does not exist");
    }
    if (lane == kNone) {
      family->any = native.function;
    } else {
      if (lane >= lanes_.size()) {
        throw std::out_of_range("lane: " + std::to_string(lane) + " does not exist");
      }
      family->by_lane.resize(std::max<std::size_t>(family->by_lane.size(), lane + 1));
      family->by_lane[lane] = native.function;
    }
    family->natives.push_back(std::move(native));
  });
}

void Executor::set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
  exclusively([&] { scheduler_.set_latency(family, lane, bucket, latency_ns); });
}

void Executor::set_duty(LaneId lane, std::vector<sched::DutyTurn> turns) {
  exclusively([&] { scheduler_.set_duty(lane, std::move(turns)); });
}

void Executor::set_routes(TenantId id, sched::Routes routes, bool move) {
  exclusively([&] {
    Tenant* tenant = tenants_.find(id);
    if (tenant == nullptr || tenant->removed.load(std::memory_order_relaxed)) {
      throw std::out_of_range("tenant: " + std::to_string(id) + " does not exist");
    }
    scheduler_.set_routes(id, std::move(routes), move, now_, actions_);
    carry_out();
  });
}

void Executor::set_batch(FamilyId family, LaneId lane, std::uint32_t samples) {
  exclusively([&] {
    scheduler_.set_batch(family, lane, samples, now_, actions_);
    carry_out();
  });
}

std::uint64_t Executor::load(LaneId lane) {
  return exclusively([&] { return scheduler_.load(lane); });
}

TimeNs Executor::predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) {
  return exclusively([&] { return scheduler_.predicted_ns(family, lane, samples); });
}

bool Executor::straggling(TenantId tenant) {
  return exclusively([&] { return scheduler_.straggling(tenant); });
}

Counters Executor::counters() {
  return exclusively([&] {
    Counters counters{.stats = stats_,
                      .failed = {},
                      .refused = {},
                      .in_flight = in_flight_.load() - ended_,
                      .waiting = scheduler_.waiting(),
                      .running = scheduler_.running(),
                      .timeline_lost = timeline_.lost()};
    for (TenantId id = 0; id < tenants_.size(); ++id) {
      counters.failed.push_back(tenants_[id].failed);
      counters.refused.push_back(tenants_[id].refused.load(std::memory_order_relaxed));
    }
    return counters;
  });
}

bool Executor::cancel(RequestId id) {
  return exclusively([&] {
    const bool waiting = scheduler_.cancel(id, now_, actions_);
    carry_out();
    return waiting;
  });
}

bool Executor::completions(std::vector<Completion>& out, std::size_t most, TimeNs until) {
  const bool more = completions_.drain(out, most, until);
  make_room();
  return more;
}

std::string Executor::recording() {
  std::string recording = exclusively([&] { return scheduler_.recording(); });
  if (!recording.empty()) tape::seal(recording);
  return recording;
}

Lane& Executor::lane(LaneId id) {
  Lane* lane = lanes_.find(id);
  if (lane == nullptr) throw std::out_of_range("lane: " + std::to_string(id) + " does not exist");
  return *lane;
}

Launch* Executor::take(LaneId id, TimeNs until) {
  Lane& from = lane(id);
  for (;;) {
    Launch* launch = from.take(until);
    if (launch == nullptr || !launch->function) return launch;
    launch->run_native();
    post_finish(from, launch->start.launch, launch->finish_ns);
    pump();
  }
}

bool Executor::finish(LaneId id, LaunchId launch, std::span<const std::int32_t> codes) {
  Lane& from = lane(id);
  if (!from.finish(launch, codes)) return false;
  post_finish(from, launch, from.launch().finish_ns);
  pump();
  return true;
}

void Executor::fail(LaneId id) {
  Lane& lost = lane(id);
  exclusively([&] { give_up(lost, Outcome::kFailed, kLaneFailed); });
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
    post_finish(lane, launch->start.launch, launch->finish_ns);
    pump();
  }
  lane.partition()->leave();
}

void Executor::keep_time() {
  pthread_setname_np(pthread_self(), "st-executor");
  while (!stopping_.load(std::memory_order_acquire)) {
    timer_.wait();
    rung_.store(true, std::memory_order_seq_cst);  // before the token: see token.h
    pump(true);
  }
}

bool Executor::close(bool drain, TimeNs until, const std::function<void()>& poll) {
  accepting_.store(false, std::memory_order_seq_cst);  // invariant 4
  room_.notify();
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
  const auto idle = [this] { return in_flight_.load(std::memory_order_seq_cst) == 0; };
  for (;;) {
    const TimeNs slice = poll ? std::min(until, after(kPollNs)) : until;
    if (idle_.await(idle, slice)) return true;
    if (now_ns() >= until) return false;
    poll();
  }
}

void Executor::drop_waiting() {
  exclusively([&] {
    dropping_ = true;
    scheduler_.drop_all(now_, actions_);
    carry_out();
  });
}

void Executor::abandon_running() {
  exclusively([&] {
    for (LaneId id = 0; id < lanes_.size(); ++id) give_up(lanes_[id], Outcome::kClosed, 0);
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
  exclusively([&] {  // a lane is added before this, or refused
    for (LaneId id = 0; id < lanes_.size(); ++id) lanes_[id].close();
  });
  for (auto& [lane, server] : servers_) lane->abandoned() ? server.detach() : server.join();
  stopping_.store(true, std::memory_order_release);
  exclusively([&] { timer_.set(0); });
  timekeeper_.join();
  completions_.close();
}

}  // namespace st::rt
