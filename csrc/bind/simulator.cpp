// simulator.cpp: the simulator, and the counters it shares with the executor.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "sched/names.h"
#include "sched/stats.h"
#include "sim/sim.h"

namespace py = pybind11;

namespace {

using namespace st::sched;
using namespace st::sim;

constexpr std::array<std::string_view, 4> kProcessNames = {"poisson", "constant", "gamma", "trace"};
constexpr std::array<std::string_view, 4> kNoiseNames = {"none", "exponential", "lognormal",
                                                         "recorded"};

py::tuple event_tuple(const SimTimeline& timeline, const SimEvent& event) {
  switch (event.kind) {
    case EventKind::kArrive:
      return py::make_tuple(event.time, "arrive", event.id, event.at);
    case EventKind::kDrop:
      return py::make_tuple(event.time, "drop", event.id, event.at,
                            name_of(kDropNames, event.reason));
    case EventKind::kFinish:
      return py::make_tuple(event.time, "finish", event.id, event.at);
    case EventKind::kStart:
      break;
  }
  py::tuple requests(event.count);
  for (std::uint32_t i = 0; i < event.count; ++i) {
    requests[i] = timeline.requests[event.first + i];
  }
  return py::make_tuple(event.time, "start", event.id, event.at, event.bucket, requests);
}

py::list timeline_list(const SimResult& result) {
  py::list out;
  for (const SimEvent& event : result.timeline.events) {
    out.append(event_tuple(result.timeline, event));
  }
  return out;
}

void bind_stats(py::module_& m) {
  py::class_<Histogram>(m, "Histogram")
      .def(py::init<>())
      .def("record", &Histogram::record, py::arg("value_ns"))
      .def("merge", &Histogram::merge, py::arg("other"))
      .def("percentile_ns", &Histogram::percentile_ns, py::arg("fraction"))
      .def_property_readonly("count", &Histogram::count)
      .def_property_readonly("min_ns", &Histogram::min_ns)
      .def_property_readonly("max_ns", &Histogram::max_ns)
      .def_property_readonly("mean_ns", &Histogram::mean_ns);
  py::class_<TenantStats>(m, "TenantStats")
      .def_readonly("offered", &TenantStats::offered)
      .def_readonly("completed", &TenantStats::completed)
      .def_property_readonly("dropped",
                             [](const TenantStats& stats) {
                               py::dict out;
                               for (std::size_t i = 0; i < kDropNames.size(); ++i) {
                                 out[py::str(kDropNames[i].data(), kDropNames[i].size())] =
                                     stats.dropped[i];
                               }
                               return out;
                             })
      .def_readonly("met", &TenantStats::met)
      .def_readonly("late", &TenantStats::late)
      .def_readonly("launches", &TenantStats::launches)
      .def_readonly("samples", &TenantStats::samples)
      .def_readonly("batch_sum", &TenantStats::batch_sum)
      .def_readonly("tenants_sum", &TenantStats::tenants_sum)
      .def_readonly("latency", &TenantStats::latency)
      .def_readonly("wait", &TenantStats::wait);
  py::class_<LaneStats>(m, "LaneStats")
      .def_readonly("launches", &LaneStats::launches)
      .def_readonly("samples", &LaneStats::samples)
      .def_readonly("padding", &LaneStats::padding)
      .def_readonly("tenants", &LaneStats::tenants)
      .def_readonly("busy_ns", &LaneStats::busy_ns);
}

SimTenant make_tenant(FamilyId family, std::int32_t priority, double weight,
                      std::uint32_t queue_limit, std::optional<LaneId> lane,
                      std::vector<double> lane_weights, const std::string& process, double rate,
                      double cv, std::vector<TimeNs> times, std::optional<std::uint64_t> stream,
                      std::uint32_t samples, std::vector<std::pair<std::uint32_t, double>> sizes,
                      std::optional<TimeNs> slo_ns, bool drops,
                      const std::vector<std::tuple<TimeNs, TimeNs, double>>& slowdowns) {
  SimTenant out;
  out.spec = {family, priority, weight, queue_limit, lane.value_or(kNone), std::move(lane_weights)};
  out.arrivals = {parse<Process>(kProcessNames, process, "process"), rate, cv, std::move(times)};
  out.stream = stream.value_or(out.stream);
  out.samples = samples;
  out.sizes = std::move(sizes);
  out.slo_ns = slo_ns.value_or(kNever);
  out.drops = drops;
  for (const auto& [from, until, factor] : slowdowns)
    out.slowdowns.push_back({from, until, factor});
  return out;
}

using Turns = std::vector<std::pair<TenantId, std::uint32_t>>;

using Lanes = std::vector<std::tuple<std::uint32_t, bool, std::optional<std::uint32_t>>>;
using Pairs = std::vector<std::tuple<LaneId, FamilyId, LaneId, FamilyId, double>>;

SimSpec make_spec(const Policy& policy, const Lanes& lanes,
                  std::vector<std::vector<std::uint32_t>> families,
                  const std::vector<std::tuple<FamilyId, LaneId, std::uint32_t, TimeNs>>& latencies,
                  std::vector<SimTenant> tenants, const std::vector<std::pair<LaneId, Turns>>& duty,
                  const Pairs& interference, const std::string& noise, double noise_cv,
                  std::vector<double> noise_factors, std::optional<TimeNs> horizon_ns,
                  std::optional<std::uint64_t> requests, std::uint64_t seed, bool timeline,
                  std::size_t record) {
  SimSpec out;
  out.policy = policy;
  for (const auto& [units, borrows, pool] : lanes) {
    out.lanes.push_back({units, borrows, pool.value_or(kNone)});
  }
  for (auto& buckets : families) out.families.push_back({std::move(buckets)});
  for (const auto& [family, lane, bucket, latency_ns] : latencies) {
    out.latencies.push_back({family, lane, bucket, latency_ns});
  }
  out.tenants = std::move(tenants);
  for (const auto& [lane, turns] : duty) {
    SimDuty& cycle = out.duty.emplace_back();
    cycle.lane = lane;
    for (const auto& [tenant, batch] : turns) cycle.turns.push_back({tenant, batch});
  }
  for (const auto& [lane, family, other, beside, extra] : interference) {
    out.interference.push_back({lane, family, other, beside, extra});
  }
  out.noise = parse<Noise>(kNoiseNames, noise, "noise");
  out.noise_cv = noise_cv;
  out.noise_factors = std::move(noise_factors);
  out.horizon_ns = horizon_ns.value_or(kNever);
  out.requests = requests.value_or(out.requests);
  out.seed = seed;
  out.timeline = timeline;
  out.record = record;
  return out;
}

void bind_spec(py::module_& m) {
  py::class_<SimTenant>(m, "SimTenant")
      .def(py::init(&make_tenant), py::kw_only(), py::arg("family"), py::arg("priority"),
           py::arg("weight"), py::arg("queue_limit"), py::arg("lane"), py::arg("lane_weights"),
           py::arg("process"), py::arg("rate"), py::arg("cv"), py::arg("times"), py::arg("stream"),
           py::arg("samples"), py::arg("sizes"), py::arg("slo_ns"), py::arg("drops"),
           py::arg("slowdowns"));
  py::class_<SimSpec>(m, "SimSpec")
      .def(py::init(&make_spec), py::kw_only(), py::arg("policy"), py::arg("lanes"),
           py::arg("families"), py::arg("latencies"), py::arg("tenants"), py::arg("duty"),
           py::arg("interference"), py::arg("noise"), py::arg("noise_cv"), py::arg("noise_factors"),
           py::arg("horizon_ns"), py::arg("requests"), py::arg("seed"), py::arg("timeline"),
           py::arg("record") = 0);
}

py::tuple counts(const Simulation& simulation) {
  const std::vector<TenantStats>& tenants = simulation.stats().tenants();
  py::tuple out(tenants.size());
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    std::uint64_t dropped = 0;
    for (const std::uint64_t each : tenants[i].dropped) dropped += each;
    out[i] = py::make_tuple(tenants[i].offered, tenants[i].completed, tenants[i].met, dropped);
  }
  return out;
}

void bind_changes(py::class_<Simulation>& simulation) {
  simulation
      .def(
          "add_lane",
          [](Simulation& s, std::uint32_t units, bool borrows, std::optional<std::uint32_t> pool) {
            return s.add_lane({units, borrows, pool.value_or(kNone)});
          },
          py::kw_only(), py::arg("units") = 1, py::arg("borrows") = true,
          py::arg("pool") = py::none())
      .def("close_lane", &Simulation::close_lane, py::arg("lane"))
      .def(
          "set_latency",
          [](Simulation& s, FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
            s.set_latency({family, lane, bucket, latency_ns});
          },
          py::arg("family"), py::arg("lane"), py::arg("bucket"), py::arg("latency_ns"))
      .def(
          "set_batch",
          [](Simulation& s, FamilyId family, LaneId lane, std::optional<std::uint32_t> samples) {
            s.set_batch(family, lane, samples.value_or(kNone));
          },
          py::arg("family"), py::arg("lane"), py::arg("samples"))
      .def(
          "set_duty",
          [](Simulation& s, LaneId lane, const Turns& turns) {
            std::vector<DutyTurn> duty;
            for (const auto& [tenant, batch] : turns) duty.push_back({tenant, batch});
            s.set_duty(lane, std::move(duty));
          },
          py::arg("lane"), py::arg("turns"))
      .def(
          "set_routes",
          [](Simulation& s, TenantId tenant, std::optional<LaneId> lane,
             std::vector<double> lane_weights, bool move) {
            s.set_routes(tenant, {lane.value_or(kNone), std::move(lane_weights)}, move);
          },
          py::arg("tenant"), py::kw_only(), py::arg("lane") = py::none(),
          py::arg("lane_weights") = std::vector<double>{}, py::arg("move") = false)
      .def("set_rate", &Simulation::set_rate, py::arg("tenant"), py::arg("rate"));
}

void bind_result(py::module_& m) {
  py::class_<SimResult>(m, "SimResult")
      .def_property_readonly("tenants", [](const SimResult& r) { return r.stats.tenants(); })
      .def_property_readonly("lanes", [](const SimResult& r) { return r.stats.lanes(); })
      .def_readonly("end_ns", &SimResult::end_ns)
      .def_property_readonly("recording", [](const SimResult& r) { return py::bytes(r.recording); })
      .def("timeline", &timeline_list);
  py::class_<Simulation> simulation(m, "Simulation");
  simulation.def(py::init<const SimSpec&>(), py::arg("spec"))
      .def(
          "run_until",
          [](Simulation& s, std::optional<TimeNs> time) {
            return s.run_until(time.value_or(kNever));
          },
          py::arg("time") = py::none(), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("now", &Simulation::now)
      .def_property_readonly("tenants", [](const Simulation& s) { return s.stats().tenants(); })
      .def_property_readonly("lanes", [](const Simulation& s) { return s.stats().lanes(); })
      .def("counts", &counts)
      .def_property_readonly("waiting", [](const Simulation& s) { return s.scheduler().waiting(); })
      .def(
          "load", [](const Simulation& s, LaneId lane) { return s.scheduler().load(lane); },
          py::arg("lane"))
      .def("result", [](const Simulation& s) { return s.result(); });
  bind_changes(simulation);
  m.def("simulate", &simulate, py::arg("spec"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_simulator(py::module_& m) {
  bind_stats(m);
  bind_spec(m);
  bind_result(m);
}
