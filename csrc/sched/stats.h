// stats.h: counters of what became of the requests, fed by whichever driver runs the scheduler.
//
// Every request is offered once, then either dropped (by reason) or completed; a completed one met
// its objective if it finished at or before its deadline (always, without one) and is late if not.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "sched/histogram.h"
#include "sched/names.h"
#include "sched/types.h"

namespace st::sched {

struct TenantStats {
  std::uint64_t offered = 0;
  std::uint64_t completed = 0;
  std::array<std::uint64_t, kDropNames.size()> dropped{};  // by DropReason
  std::uint64_t met = 0;
  std::uint64_t late = 0;
  std::uint64_t launches = 0;     // that held a request of it
  std::uint64_t samples = 0;      // of its requests that started
  std::uint64_t batch_sum = 0;    // samples of the launches its completed requests were in
  std::uint64_t tenants_sum = 0;  // tenants of those launches
  Histogram latency;              // arrival to finish
  Histogram wait;                 // arrival to start
};

struct LaneStats {
  std::uint64_t launches = 0;
  std::uint64_t samples = 0;
  std::uint64_t padding = 0;  // bucket - samples
  std::uint64_t tenants = 0;  // sum over the launches
  TimeNs busy_ns = 0;
};

// One finished request.
struct Finished {
  TenantId tenant = kNone;
  TimeNs arrival = 0;
  TimeNs deadline = kNever;
  TimeNs started = 0;
  TimeNs finished = 0;
};

class Stats {
 public:
  void add_tenant() { tenants_.emplace_back(); }
  void add_lane() { lanes_.emplace_back(); }

  void on_arrive(TenantId tenant) { ++tenants_[tenant].offered; }

  void on_drop(TenantId tenant, DropReason reason) {
    ++tenants_[tenant].dropped[static_cast<std::size_t>(reason)];
  }

  // on_start: a launch begins, with requests of `tenants` different tenants.
  void on_start(const Start& start, std::uint32_t tenants) {
    LaneStats& lane = lanes_[start.lane];
    ++lane.launches;
    lane.samples += start.samples;
    lane.padding += start.bucket - start.samples;
    lane.tenants += tenants;
  }

  // on_begin: a request of `samples` starts; `first` of its tenant's in the launch.
  void on_begin(TenantId tenant, std::uint32_t samples, bool first) {
    tenants_[tenant].launches += first;
    tenants_[tenant].samples += samples;
  }

  // on_idle: the launch ended after `busy_ns`.
  void on_idle(LaneId lane, TimeNs busy_ns) { lanes_[lane].busy_ns += busy_ns; }

  // on_finish: one request is answered, by a launch of `samples` samples of `tenants` tenants.
  void on_finish(const Finished& request, std::uint32_t samples, std::uint32_t tenants) {
    TenantStats& tenant = tenants_[request.tenant];
    ++tenant.completed;
    ++(request.finished <= request.deadline ? tenant.met : tenant.late);
    tenant.batch_sum += samples;
    tenant.tenants_sum += tenants;
    tenant.latency.record(request.finished - request.arrival);
    tenant.wait.record(request.started - request.arrival);
  }

  const std::vector<TenantStats>& tenants() const { return tenants_; }
  const std::vector<LaneStats>& lanes() const { return lanes_; }

 private:
  std::vector<TenantStats> tenants_;
  std::vector<LaneStats> lanes_;
};

}  // namespace st::sched
