// sim_state.h: the inside of a simulation. set_up.cpp sets it up and changes it, sim.cpp runs it.
#pragma once

#include <utility>
#include <vector>

#include "sched/indexed_heap.h"
#include "sim/sim.h"

namespace st::sim {

struct SimSource {
  std::uint32_t place = kNone;
};

struct SimLive {  // a request between its arrival and its end
  std::uint64_t number = 0;
  TenantId tenant = kNone;
  TimeNs arrival = 0;
  TimeNs objective = kNever;
  std::uint32_t samples = 0;
};

struct SimLane {
  LaunchId launch = 0;  // 0 = idle
  FamilyId family = kNone;
  TimeNs started = 0;
  std::uint32_t samples = 0;
  std::uint32_t tenants = 0;
  std::vector<RequestId> requests;
};

// How many samples each request of a tenant holds.
struct SimSizes {
  std::vector<std::uint32_t> samples;
  std::vector<double> sums;  // of the weights
  Random random;
};

struct Simulation::State {
  explicit State(SimSpec spec);

  void set_up();
  LaneId add_lane(const LaneSpec& spec);
  void add_tenant(TenantId id);
  bool run_until(TimeNs time);
  TimeNs step(TimeNs before);
  void add_latency(const SimLatency& latency);
  void add_interference(const SimInterference& pair);
  void add_sizes(const SimTenant& tenant, std::uint64_t stream);
  void check_end() const;
  void check_factors();
  std::uint32_t lanes() const { return static_cast<std::uint32_t>(lane_states_.size()); }

  void draw_arrival(TenantId tenant);
  void schedule(TenantId tenant, TimeNs at);
  void arrivals(TimeNs now);
  void arrive(TenantId tenant, TimeNs now);
  void finish(LaneId lane, TimeNs now);
  void act(TimeNs now);
  void start(const Start& start, TimeNs now);
  TimeNs service_ns(const Start& start, TimeNs now);
  double slowdown(const Start& start, TimeNs now) const;
  double interference(const Start& start) const;
  std::uint32_t count_tenants(const Start& start);
  void drop(const Drop& drop, TimeNs now);
  RequestId slot();
  void change_routes(TenantId tenant, Routes routes, bool move);
  void change_batch(FamilyId family, LaneId lane, std::uint32_t samples);
  void change_rate(TenantId tenant, double rate);

  const SimSpec spec_;
  Recorder scheduler_;
  SimResult result_;
  Random noise_;
  double mean_factor_ = 1;
  std::vector<Arrivals> arrivals_;                         // by tenant
  std::vector<SimSizes> sizes_;                            // by tenant
  std::vector<std::vector<std::vector<TimeNs>>> latency_;  // by family, lane, bucket's place
  std::vector<SimLane> lane_states_;
  std::vector<std::vector<SimInterference>> neighbours_;  // by lane
  std::vector<SimSource> busy_;                           // by lane
  std::vector<SimSource> sources_;                        // by tenant
  IndexedHeap<SimSource, &SimSource::place, TimeNs> finishes_;
  IndexedHeap<SimSource, &SimSource::place, TimeNs> next_;  // arrivals
  std::vector<SimLive> live_;
  std::vector<RequestId> free_;
  std::vector<std::uint64_t> seen_;  // by tenant: the last launch it was in
  std::vector<Request> burst_;
  Actions actions_;
  std::uint64_t offered_ = 0;
  TimeNs now_ = 0;
};

}  // namespace st::sim
