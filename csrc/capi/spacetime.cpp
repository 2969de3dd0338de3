// spacetime.cpp: the C API's calls: arguments in, one call of the session, status out.
#include "capi/spacetime.h"

#include <algorithm>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "capi/error.h"
#include "capi/session.h"
#include "cuda/partition.h"

namespace {

using namespace st;
using namespace st::capi;

constexpr std::uint32_t kMostCapacity = 1 << 24;
constexpr std::uint32_t kMostListed = 1 << 16;  // units, buckets, turns, weights of one call

// Sessions by handle. Never destroyed: threads may outlive the end of main.
struct Registry {
  std::shared_mutex mutex;
  std::unordered_map<st_session, std::shared_ptr<Session>> sessions;
  st_session next = 1;
};

Registry& registry() {
  static Registry* const only = new Registry;
  return *only;
}

std::shared_ptr<Session> named(st_session handle) {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  const auto found = all.sessions.find(handle);
  if (found == all.sessions.end()) {
    throw Refused(ST_STALE, "session: " + std::to_string(handle) + " does not exist");
  }
  if (found->second->executor().forked()) {
    throw Refused(ST_CLOSED, "session: it belongs to the parent process; open one after the fork");
  }
  return found->second;
}

// checked: the caller's structure, or the default where it gave none.
template <typename Options>
Options checked(const Options* given, const Options& standard, const char* name) {
  if (given == nullptr) return standard;
  if (given->size != sizeof(Options)) {
    throw Refused(ST_INVALID, std::string(name) + ".size: must be sizeof(st_" + name + "), " +
                                  std::to_string(sizeof(Options)) + "; start from its _INIT");
  }
  return *given;
}

template <typename Item>
std::vector<Item> list(const Item* items, std::uint32_t count, const char* name) {
  if (count > kMostListed || (items == nullptr && count > 0)) {
    throw Refused(ST_INVALID,
                  std::string(name) + ": NULL, or more than " + std::to_string(kMostListed));
  }
  return {items, items + count};
}

void check_out(const void* out, const char* text) { require(out != nullptr, text); }

void refuse_inside(Session& session) {
  require(!in_runner() && !session.notifier().here(),
          "session: closed by a runner or callback, it would wait for itself");
}

// collect: the result into `out`, once.
void collect(Session& session, st_request handle, rt::TimeNs until, st_result* out) {
  if (out != nullptr) checked(out, *out, "result");
  const std::shared_ptr<PendingRequest> request = session.find(handle);
  require(!request->calls_back(), "request: it has a callback, which gets its result");
  if (!request->wait(until)) throw Refused(ST_PENDING, "request: it has not ended yet");
  if (!session.take(handle)) throw Refused(ST_STALE, "request: its result was taken meanwhile");
  if (out != nullptr) *out = request->result();
}

rt::TimeNs until(std::int64_t timeout_ns) {
  require(timeout_ns >= 0, "timeout_ns: must not be negative; ST_NEVER waits without a limit");
  return timeout_ns == ST_NEVER ? rt::kNever : rt::after(timeout_ns);
}

void add(st_report& report, const sched::TenantStats& stats, sched::Histogram& latency) {
  report.offered += stats.offered;
  report.completed += stats.completed;
  report.met += stats.met;
  report.late += stats.late;
  report.mean_samples += static_cast<double>(stats.batch_sum);
  report.mean_tenants += static_cast<double>(stats.tenants_sum);
  for (std::size_t i = 0; i < stats.dropped.size(); ++i) report.dropped[i + 2] += stats.dropped[i];
  latency.merge(stats.latency);
}

st_report report_of(const rt::Counters& counters, st_tenant tenant) {
  st_report report{};
  report.size = sizeof report;
  sched::Histogram latency;
  for (st_tenant id = 0; id < counters.failed.size(); ++id) {
    if (tenant != ST_ANY && tenant != id) continue;
    add(report, counters.stats.tenants()[id], latency);
    report.failed += counters.failed[id];
    report.refused += counters.refused[id];
  }
  const double completed = static_cast<double>(std::max<std::uint64_t>(report.completed, 1));
  report.mean_samples /= completed;
  report.mean_tenants /= completed;
  report.mean_ns = static_cast<std::int64_t>(latency.mean_ns());
  report.p50_ns = latency.percentile_ns(0.5);
  report.p90_ns = latency.percentile_ns(0.9);
  report.p99_ns = latency.percentile_ns(0.99);
  report.max_ns = latency.max_ns();
  report.in_flight = counters.in_flight;
  return report;
}

}  // namespace

// ---- sessions -------------------------------------------------------------------------------

int st_open(const char* device, const st_options* options, st_session* session) {
  return guarded([&] {
    check_out(session, "session: NULL");
    require(device != nullptr, "device: NULL; name cpu, cuda:N or fake:h200");
    const st_options with = checked(options, ST_OPTIONS_INIT, "options");
    require(with.policy != nullptr, "options.policy: NULL; name one, such as space-time");
    require(with.capacity >= 1 && with.capacity <= kMostCapacity,
            "options.capacity: must be from 1 to 16777216");
    require(with.age_ns > 0, "options.age_ns: must be positive, or ST_NEVER");
    auto opened = std::make_shared<Session>(device, with);
    Registry& all = registry();
    const std::unique_lock lock(all.mutex);
    all.sessions.emplace(all.next, std::move(opened));
    *session = all.next++;
  });
}

int st_close(st_session session, int drain, int64_t timeout_ns) {
  return guarded([&] {
    const auto own = named(session);
    refuse_inside(*own);
    if (!own->close(drain != 0, until(timeout_ns))) {
      throw Refused(ST_PENDING, "session: closed, but launches had to be given up");
    }
  });
}

int st_free(st_session session) {
  return guarded([&] {
    const auto own = named(session);
    refuse_inside(*own);
    {
      Registry& all = registry();
      const std::unique_lock lock(all.mutex);
      if (all.sessions.erase(session) == 0) throw Refused(ST_STALE, "session: freed meanwhile");
    }
    own->close(false, rt::kNever);
  });
}

int st_units(st_session session, uint32_t* units, uint32_t room, uint32_t* count) {
  return guarded([&] {
    check_out(count, "count: NULL");
    require(units != nullptr || room == 0, "units: NULL with room for some");
    const std::vector<std::uint32_t> found = named(session)->backend().available();
    std::copy_n(found.begin(), std::min<std::size_t>(room, found.size()), units);
    *count = static_cast<uint32_t>(found.size());
  });
}

// ---- lanes, families, tenants ---------------------------------------------------------------

int st_add_lane(st_session session, const uint32_t* units, uint32_t count,
                const st_lane_options* options, st_lane* lane) {
  return guarded([&] {
    const auto own = named(session);
    const st_lane_options with = checked(options, ST_LANE_OPTIONS_INIT, "lane_options");
    std::vector<std::uint32_t> chosen = list(units, count, "units");
    if (chosen.empty()) chosen = own->backend().available();
    const st_lane made = own->executor().add_lane(chosen, with.borrows != 0, true, with.priority);
    if (lane != nullptr) *lane = made;
  });
}

int st_lane_units(st_session session, st_lane lane, uint32_t* units) {
  return guarded([&] {
    check_out(units, "units: NULL");
    const auto own = named(session);
    const rt::Partition* partition = own->executor().lane(lane).partition();
    require(partition != nullptr, "lane: it runs inline, on the threads that submit");
    *units = partition->units();
  });
}

int st_lane_stream(st_session session, st_lane lane, void** stream) {
  return guarded([&] {
    check_out(stream, "stream: NULL");
    const auto own = named(session);
    const auto* sms =
        dynamic_cast<const cuda::SmPartition*>(own->executor().lane(lane).partition());
    if (sms == nullptr) throw Refused(ST_UNSUPPORTED, "stream: a lane on cores has none");
    *stream = sms->stream()->handle();
  });
}

int st_add_family(st_session session, const uint32_t* buckets, uint32_t count, st_family* family) {
  return guarded([&] {
    check_out(family, "family: NULL");
    const auto own = named(session);
    *family = own->executor().add_family({list(buckets, count, "buckets")});
  });
}

int st_set_runner(st_session session, st_family family, st_lane lane, st_native_function runner,
                  void* context) {
  return guarded([&] {
    require(runner != nullptr, "runner: NULL");
    named(session)->executor().set_native(family, guarded_runner(runner, context), lane);
  });
}

int st_set_latency(st_session session, st_family family, st_lane lane, uint32_t bucket,
                   int64_t latency_ns) {
  return guarded([&] { named(session)->executor().set_latency(family, lane, bucket, latency_ns); });
}

int st_add_tenant(st_session session, st_family family, const st_tenant_options* options,
                  st_tenant* tenant) {
  return guarded([&] {
    check_out(tenant, "tenant: NULL");
    const auto own = named(session);
    const st_tenant_options with = checked(options, ST_TENANT_OPTIONS_INIT, "tenant_options");
    require(with.priority != ST_TENANTS, "tenant_options.priority: must be above INT32_MIN");
    require(with.slo_ns > 0, "tenant_options.slo_ns: must be positive, or ST_NEVER");
    *tenant = own->add_tenant(
        {family, with.priority, with.weight, with.queue_limit, with.lane,
         list(with.lane_weights, with.lane_weight_count, "tenant_options.lane_weights")},
        with.slo_ns);
  });
}

int st_remove_tenant(st_session session, st_tenant tenant) {
  return guarded([&] { named(session)->executor().remove_tenant(tenant); });
}

int st_set_routes(st_session session, st_tenant tenant, st_lane lane, const double* lane_weights,
                  uint32_t lane_weight_count, int move) {
  return guarded([&] {
    sched::Routes routes{lane, list(lane_weights, lane_weight_count, "lane_weights")};
    named(session)->executor().set_routes(tenant, std::move(routes), move != 0);
  });
}

int st_close_lane(st_session session, st_lane lane) {
  return guarded([&] { named(session)->executor().close_lane(lane); });
}

int st_set_duty(st_session session, st_lane lane, const st_turn* turns, uint32_t count) {
  return guarded([&] {
    const auto own = named(session);
    std::vector<sched::DutyTurn> cycle;
    for (const st_turn& turn : list(turns, count, "turns")) {
      cycle.push_back({turn.tenant, turn.batch});
    }
    own->executor().set_duty(lane, std::move(cycle));
  });
}

// ---- requests -------------------------------------------------------------------------------

int st_submit(st_session session, st_tenant tenant, const st_submission* submission,
              st_request* request) {
  return guarded([&] {
    const auto own = named(session);
    const st_submission made = checked(submission, ST_SUBMISSION_INIT, "submission");
    require(made.deadline_ns >= 0,
            "submission.deadline_ns: must be positive, ST_NEVER, or 0 for the tenant's objective");
    const st_request handle = own->submit(tenant, made, request != nullptr);
    if (request != nullptr) *request = handle;
  });
}

int st_wait(st_session session, st_request request, int64_t timeout_ns, st_result* result) {
  return guarded([&] {
    const auto own = named(session);
    collect(*own, request, until(timeout_ns), result);
  });
}

int st_poll(st_session session, st_request request, st_result* result) {
  return st_wait(session, request, 0, result);
}

int st_cancel(st_session session, st_request request) {
  return guarded([&] {
    const auto own = named(session);
    const rt::RequestId native = own->find(request)->native.load(std::memory_order_acquire);
    if (!own->executor().cancel(native)) {
      throw Refused(ST_TOO_LATE, "request: it has started or ended");
    }
  });
}

int st_forget(st_session session, st_request request) {
  return guarded([&] {
    const auto own = named(session);
    require(!own->find(request)->calls_back(), "request: it has a callback, which gets its result");
    if (!own->take(request)) throw Refused(ST_STALE, "request: its result was taken meanwhile");
  });
}

int st_read_report(st_session session, st_tenant tenant, st_report* report) {
  return guarded([&] {
    check_out(report, "report: NULL");
    checked(report, *report, "report");
    const rt::Counters counters = named(session)->executor().counters();
    require(tenant == ST_ANY || tenant < counters.failed.size(), "tenant: does not exist");
    *report = report_of(counters, tenant);
  });
}
