#include "tape/replay.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "sched/names.h"
#include "sched/scheduler.h"
#include "tape/tape.h"

namespace st::tape {
namespace {

// What a recording may ask for: far above any real one, far below what would overflow or exhaust.
constexpr TimeNs kLatest = TimeNs{1} << 61;
constexpr TimeNs kLongest = TimeNs{1} << 42;  // predicted, 73 minutes
constexpr std::uint64_t kMostSamples = 1 << 20;
constexpr std::uint64_t kMostIds = 1 << 16;    // lanes; families; tenants
constexpr std::uint64_t kMostCells = 1 << 20;  // lanes x what is kept for each of them

std::string words(const Drop& drop) {
  return "drops request " + std::to_string(drop.request) + " of tenant " +
         std::to_string(drop.tenant) + " (" + std::string(name_of(kDropNames, drop.reason)) + ")";
}

std::string words(const Start& start, const std::vector<RequestId>& requests) {
  std::string out = "starts launch " + std::to_string(start.launch) + " of family " +
                    std::to_string(start.family) + " on lane " + std::to_string(start.lane) +
                    ", bucket " + std::to_string(start.bucket) + ", " +
                    std::to_string(start.samples) + " samples, requests";
  for (std::uint32_t i = 0; i < start.count; ++i) {
    out += " " + std::to_string(requests[start.first + i]);
  }
  return out;
}

// All decisions of one event, in order, as words.
std::vector<std::string> words(const Actions& actions) {
  std::vector<std::string> out;
  for (const Drop& drop : actions.drops) out.push_back(words(drop));
  for (const Start& start : actions.starts) out.push_back(words(start, actions.requests));
  return out;
}

bool same(const Actions& a, const Actions& b) {
  const auto drops = [](const Drop& x, const Drop& y) {
    return x.request == y.request && x.tenant == y.tenant && x.reason == y.reason;
  };
  const auto starts = [](const Start& x, const Start& y) {
    return x.launch == y.launch && x.lane == y.lane && x.family == y.family &&
           x.samples == y.samples && x.bucket == y.bucket && x.count == y.count;
  };
  return a.requests == b.requests &&
         std::equal(a.drops.begin(), a.drops.end(), b.drops.begin(), b.drops.end(), drops) &&
         std::equal(a.starts.begin(), a.starts.end(), b.starts.begin(), b.starts.end(), starts);
}

class Replayer {
 public:
  explicit Replayer(std::string_view recording);
  Replay run();

 private:
  template <typename Call>
  void located(Call call);
  void set_up(Mark mark);
  void add_tenant();
  void set_duty();
  void event(Mark mark);
  void set_routes();
  void set_batch();
  void arrive();
  void read_decisions();
  void read_start();
  void compare_decisions();
  void finish_reading();
  RequestId request() { return tape_.number(~0ull, "request"); }
  void bound(std::uint64_t count, std::uint64_t most, const char* what) const;

  TapeReader tape_;
  std::unique_ptr<Scheduler> scheduler_;
  Replay result_;
  Actions recorded_;
  Actions decided_;
  std::vector<Request> burst_;
  std::unordered_set<RequestId> live_;
  TimeNs now_ = 0;
  TimeNs first_ = 0;
  std::uint64_t lanes_ = 0;
  std::uint64_t kept_ = 0;  // buckets of the families, and tenants
};

Policy read_policy(TapeReader& tape) {
  if (tape.mark() != Mark::kPolicy) tape.fail("the first record must be the policy");
  Policy policy;
  policy.route = static_cast<Route>(tape.number(kRouteNames.size() - 1, "route"));
  policy.order = static_cast<Order>(tape.number(kOrderNames.size() - 1, "order"));
  policy.batch = static_cast<BatchRule>(tape.number(kBatchNames.size() - 1, "batch"));
  policy.timeout_ns = tape.integer(0, kLatest, "timeout_ns");
  policy.shed = tape.flag("shed");
  policy.lend = tape.flag("lend");
  policy.first_fit = tape.flag("first_fit");
  policy.elsa_alpha = tape.real();
  policy.elsa_beta = tape.real();
  policy.straggler.multiple = tape.real();
  policy.straggler.recovery = tape.real();
  policy.straggler.patience = tape.small("patience");
  policy.straggler_lane = tape.small("straggler_lane");
  policy.max_borrow_ns = tape.integer(1, kNever, "max_borrow_ns");
  policy.age_ns = tape.integer(1, kNever, "age_ns");
  return policy;
}

Replayer::Replayer(std::string_view recording) : tape_(recording) {
  const Policy policy = read_policy(tape_);
  located([&] { scheduler_ = std::make_unique<Scheduler>(policy); });
}

// located: what the scheduler refuses is refused with its place in the recording.
template <typename Call>
void Replayer::located(Call call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    if (text.starts_with("recording: ")) throw;
    tape_.fail(text);
  }
}

void Replayer::bound(std::uint64_t count, std::uint64_t most, const char* what) const {
  if (count > most) tape_.fail(std::string(what) + ": more than " + std::to_string(most));
}

Replay Replayer::run() {
  while (tape_.peek() != Mark::kEnd) {
    const Mark mark = tape_.mark();
    const bool event_mark = mark >= Mark::kArrive;  // events are small letters
    located([&] { event_mark ? event(mark) : set_up(mark); });
    if (result_.difference) return std::move(result_);
  }
  finish_reading();
  return std::move(result_);
}

void Replayer::finish_reading() {
  tape_.mark();
  if (tape_.number(~0ull, "events") != result_.events) tape_.fail("events: are not as many");
  result_.complete = tape_.flag("complete");
  if (!tape_.at_end()) tape_.fail("goes on after its end record");
}

// ---- set-up ---------------------------------------------------------------------------------

void Replayer::set_up(Mark mark) {
  if (mark == Mark::kLane) {
    bound(++lanes_, kMostIds, "lanes");
    bound(lanes_ * kept_, kMostCells, "lanes and families");
    const std::uint32_t units = tape_.small("units");
    const bool borrows = tape_.flag("borrows");
    scheduler_->add_lane({units, borrows, tape_.small("pool")});
  } else if (mark == Mark::kFamily) {
    FamilySpec spec;
    const std::uint64_t buckets = tape_.count("buckets");
    kept_ += buckets + 1;
    bound(lanes_ * kept_, kMostCells, "lanes and families");
    for (std::uint64_t i = 0; i < buckets; ++i) {
      spec.buckets.push_back(static_cast<std::uint32_t>(tape_.number(kMostSamples, "bucket")));
    }
    scheduler_->add_family(spec);
  } else if (mark == Mark::kTenant) {
    add_tenant();
  } else if (mark == Mark::kLatency) {
    const FamilyId family = tape_.small("family");
    const LaneId lane = tape_.small("lane");
    const std::uint32_t bucket = tape_.small("bucket");
    scheduler_->set_latency(family, lane, bucket, tape_.integer(1, kLongest, "latency_ns"));
  } else if (mark == Mark::kDuty) {
    set_duty();
  } else if (mark == Mark::kClose) {
    scheduler_->close_lane(tape_.small("lane"));
  } else {
    tape_.fail("unknown record");
  }
}

void Replayer::add_tenant() {
  TenantSpec spec;
  bound(lanes_ * ++kept_, kMostCells, "lanes and tenants");
  spec.family = tape_.small("family");
  spec.priority = static_cast<std::int32_t>(tape_.integer(INT32_MIN, INT32_MAX, "priority"));
  spec.weight = tape_.real();
  spec.queue_limit = tape_.small("queue_limit");
  spec.lane = tape_.small("lane");
  const std::uint64_t weights = tape_.count("lane_weights");
  for (std::uint64_t i = 0; i < weights; ++i) spec.lane_weights.push_back(tape_.real());
  scheduler_->add_tenant(spec);
}

void Replayer::set_duty() {
  const LaneId lane = tape_.small("lane");
  std::vector<DutyTurn> turns(tape_.count("turns"));
  for (DutyTurn& turn : turns) {
    turn.tenant = tape_.small("tenant");
    turn.batch = static_cast<std::uint32_t>(tape_.number(kMostSamples, "batch"));
  }
  scheduler_->set_duty(lane, std::move(turns));
}

// ---- events ---------------------------------------------------------------------------------

void Replayer::event(Mark mark) {
  const auto since = tape_.number(static_cast<std::uint64_t>(kLatest - now_), "time");
  now_ += static_cast<TimeNs>(since);
  if (result_.events++ == 0) first_ = now_;
  result_.span_ns = now_ - first_;
  decided_.clear();
  switch (mark) {
    case Mark::kArrive:
      arrive();
      break;
    case Mark::kCancel:
      scheduler_->cancel(request(), now_, decided_);
      break;
    case Mark::kFinish:
      scheduler_->finish(tape_.number(~0ull, "launch"), now_, decided_);
      break;
    case Mark::kWake:
      scheduler_->wake(now_, decided_);
      break;
    case Mark::kRemove:
      scheduler_->remove_tenant(tape_.small("tenant"), now_, decided_);
      break;
    case Mark::kRoutes:
      set_routes();
      break;
    case Mark::kBatch:
      set_batch();
      break;
    case Mark::kDropAll:
      scheduler_->drop_all(now_, decided_);
      break;
    default:
      tape_.fail("unknown event");
  }
  read_decisions();
  compare_decisions();
}

void Replayer::set_routes() {
  const TenantId tenant = tape_.small("tenant");
  Routes routes{tape_.small("lane"), {}};
  const std::uint64_t weights = tape_.count("lane_weights");
  for (std::uint64_t i = 0; i < weights; ++i) routes.lane_weights.push_back(tape_.real());
  scheduler_->set_routes(tenant, std::move(routes), tape_.flag("move"), now_, decided_);
}

void Replayer::set_batch() {
  const FamilyId family = tape_.small("family");
  const LaneId lane = tape_.small("lane");
  scheduler_->set_batch(family, lane, tape_.small("samples"), now_, decided_);
}

void Replayer::arrive() {
  burst_.clear();
  const std::uint64_t count = tape_.count("requests");
  result_.requests += count;
  for (std::uint64_t i = 0; i < count; ++i) {
    Request& each = burst_.emplace_back();
    each.id = request();
    each.tenant = tape_.small("tenant");
    each.samples = static_cast<std::uint32_t>(tape_.number(kMostSamples, "samples"));
    if (tape_.flag("priority")) {
      each.priority = static_cast<std::int32_t>(tape_.integer(kTenants + 1, INT32_MAX, "priority"));
    }
    each.arrival = now_ - tape_.integer(-kLatest, kLatest, "arrival");
    if (tape_.flag("deadline")) {
      each.deadline = now_ + tape_.integer(-kLatest, kLatest, "deadline");
    }
    if (!live_.insert(each.id).second) tape_.fail("request: its id is in use already");
  }
  scheduler_->arrive(burst_, now_, decided_);
}

void Replayer::read_decisions() {
  recorded_.clear();
  while (tape_.peek() == Mark::kDrop || tape_.peek() == Mark::kStart) {
    if (tape_.mark() == Mark::kStart) {
      read_start();
      continue;
    }
    if (!recorded_.starts.empty()) tape_.fail("a drop after a start");
    Drop& drop = recorded_.drops.emplace_back();
    drop.request = request();
    drop.tenant = tape_.small("tenant");
    drop.reason = static_cast<DropReason>(tape_.number(kDropNames.size() - 1, "reason"));
  }
}

void Replayer::read_start() {
  Start& start = recorded_.starts.emplace_back();
  start.launch = tape_.number(~0ull, "launch");
  start.lane = tape_.small("lane");
  start.family = tape_.small("family");
  start.samples = tape_.small("samples");
  start.bucket = tape_.small("bucket");
  start.first = static_cast<std::uint32_t>(recorded_.requests.size());
  start.count = static_cast<std::uint32_t>(tape_.count("requests"));
  for (std::uint32_t i = 0; i < start.count; ++i) recorded_.requests.push_back(request());
}

void Replayer::compare_decisions() {
  result_.starts += decided_.starts.size();
  result_.drops += decided_.drops.size();
  for (const Drop& drop : decided_.drops) live_.erase(drop.request);
  for (const RequestId id : decided_.requests) live_.erase(id);
  if (same(recorded_, decided_)) return;
  const std::vector<std::string> before = words(recorded_);
  const std::vector<std::string> again = words(decided_);
  std::size_t at = 0;
  while (at < std::min(before.size(), again.size()) && before[at] == again[at]) ++at;
  const std::string none = "decides nothing more";
  result_.difference = {.at_ns = now_ - first_,
                        .event = result_.events,
                        .recorded = at < before.size() ? before[at] : none,
                        .replayed = at < again.size() ? again[at] : none};
}

}  // namespace

Replay replay(std::string_view recording) { return Replayer(recording).run(); }

}  // namespace st::tape
