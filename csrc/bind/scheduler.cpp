// scheduler.cpp: policies and their words, the scheduler driven by hand, and recordings replayed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sched/names.h"
#include "sched/presets.h"
#include "tape/recorder.h"
#include "tape/replay.h"

namespace py = pybind11;

namespace {

using namespace st::sched;
using st::tape::Difference;
using st::tape::Recorder;
using st::tape::Replay;

template <std::size_t N>
py::tuple words(const std::array<std::string_view, N>& names) {
  py::tuple out(N);
  for (std::size_t i = 0; i < N; ++i) out[i] = py::str(names[i].data(), names[i].size());
  return out;
}

Policy make_policy(const std::string& route, const std::string& order, const std::string& batch,
                   TimeNs timeout_ns, bool shed, bool lend, std::optional<TimeNs> max_borrow_ns,
                   std::optional<TimeNs> age_ns, bool first_fit, double elsa_alpha,
                   double elsa_beta, double straggler_multiple, double straggler_recovery,
                   std::uint32_t straggler_patience, std::optional<LaneId> straggler_lane) {
  Policy policy;
  policy.route = parse<Route>(kRouteNames, route, "Policy.route");
  policy.order = parse<Order>(kOrderNames, order, "Policy.order");
  policy.batch = parse<BatchRule>(kBatchNames, batch, "Policy.batch");
  policy.timeout_ns = timeout_ns;
  policy.shed = shed;
  policy.lend = lend;
  policy.max_borrow_ns = max_borrow_ns.value_or(kNever);
  policy.age_ns = age_ns.value_or(kNever);
  policy.first_fit = first_fit;
  policy.elsa_alpha = elsa_alpha;
  policy.elsa_beta = elsa_beta;
  policy.straggler = {straggler_multiple, straggler_recovery, straggler_patience};
  policy.straggler_lane = straggler_lane.value_or(kNone);
  return policy;
}

template <class Value>
std::optional<Value> unless(Value value, Value none) {
  return value == none ? std::nullopt : std::optional(value);
}

py::list actions_list(const Actions& actions) {
  py::list out;
  for (const Drop& drop : actions.drops) {
    out.append(py::make_tuple("drop", drop.request, drop.tenant, name_of(kDropNames, drop.reason)));
  }
  for (const Start& start : actions.starts) {
    py::tuple requests(start.count);
    for (std::uint32_t i = 0; i < start.count; ++i) {
      requests[i] = actions.requests[start.first + i];
    }
    out.append(py::make_tuple("start", start.launch, start.lane, start.family, start.bucket,
                              requests, start.predicted_ns));
  }
  return out;
}

template <class Call>
py::list acted(Call&& call) {
  Actions actions;
  call(actions);
  return actions_list(actions);
}

void bind_policy(py::module_& m) {
  py::class_<Policy>(m, "Policy")
      .def(py::init(&make_policy), py::kw_only(), py::arg("route") = "least-wait",
           py::arg("order") = "edf", py::arg("batch") = "slack",
           py::arg("timeout_ns") = Policy{}.timeout_ns, py::arg("shed") = false,
           py::arg("lend") = true, py::arg("max_borrow_ns") = py::none(),
           py::arg("age_ns") = Policy{}.age_ns, py::arg("first_fit") = false,
           py::arg("elsa_alpha") = 1.0, py::arg("elsa_beta") = 1.0,
           py::arg("straggler_multiple") = 0.0,
           py::arg("straggler_recovery") = StragglerRule{}.recovery,
           py::arg("straggler_patience") = StragglerRule{}.patience,
           py::arg("straggler_lane") = py::none())
      .def_static("named", &preset, py::arg("name"))
      .def_property_readonly("route", [](const Policy& p) { return name_of(kRouteNames, p.route); })
      .def_property_readonly("order", [](const Policy& p) { return name_of(kOrderNames, p.order); })
      .def_property_readonly("batch", [](const Policy& p) { return name_of(kBatchNames, p.batch); })
      .def_readonly("timeout_ns", &Policy::timeout_ns)
      .def_readonly("shed", &Policy::shed)
      .def_readonly("lend", &Policy::lend)
      .def_property_readonly("max_borrow_ns",
                             [](const Policy& p) { return unless(p.max_borrow_ns, kNever); })
      .def_property_readonly("age_ns", [](const Policy& p) { return unless(p.age_ns, kNever); })
      .def_readonly("first_fit", &Policy::first_fit)
      .def_readonly("elsa_alpha", &Policy::elsa_alpha)
      .def_readonly("elsa_beta", &Policy::elsa_beta)
      .def_property_readonly("straggler_multiple",
                             [](const Policy& p) { return p.straggler.multiple; })
      .def_property_readonly("straggler_recovery",
                             [](const Policy& p) { return p.straggler.recovery; })
      .def_property_readonly("straggler_patience",
                             [](const Policy& p) { return p.straggler.patience; })
      .def_property_readonly("straggler_lane",
                             [](const Policy& p) { return unless(p.straggler_lane, kNone); });
  m.attr("ROUTES") = words(kRouteNames);
  m.attr("ORDERS") = words(kOrderNames);
  m.attr("BATCHES") = words(kBatchNames);
  m.attr("DROPS") = words(kDropNames);
  std::array<std::string_view, kPresets.size()> presets;
  for (std::size_t i = 0; i < presets.size(); ++i) presets[i] = kPresets[i].name;
  m.attr("PRESETS") = words(presets);
}

std::vector<DutyTurn> duty_turns(const std::vector<std::pair<TenantId, std::uint32_t>>& turns) {
  std::vector<DutyTurn> out;
  for (const auto& [tenant, batch] : turns) out.push_back({tenant, batch});
  return out;
}

void bind_scheduler_setup(py::class_<Recorder>& scheduler) {
  scheduler
      .def(py::init<const Policy&, std::size_t>(), py::arg("policy"), py::kw_only(),
           py::arg("record") = 0)
      .def(
          "add_lane",
          [](Recorder& s, std::uint32_t units, bool borrows) {
            return s.add_lane({units, borrows});
          },
          py::kw_only(), py::arg("units") = 1, py::arg("borrows") = true)
      .def(
          "add_family",
          [](Recorder& s, std::vector<std::uint32_t> buckets) {
            return s.add_family({std::move(buckets)});
          },
          py::arg("buckets"))
      .def(
          "add_tenant",
          [](Recorder& s, FamilyId family, std::int32_t priority, double weight,
             std::uint32_t queue_limit, std::optional<LaneId> lane,
             std::vector<double> lane_weights) {
            return s.add_tenant({family, priority, weight, queue_limit, lane.value_or(kNone),
                                 std::move(lane_weights)});
          },
          py::arg("family"), py::kw_only(), py::arg("priority") = 0, py::arg("weight") = 1.0,
          py::arg("queue_limit") = TenantSpec{}.queue_limit, py::arg("lane") = py::none(),
          py::arg("lane_weights") = std::vector<double>{})
      .def(
          "set_duty",
          [](Recorder& s, LaneId lane,
             const std::vector<std::pair<TenantId, std::uint32_t>>& turns) {
            s.set_duty(lane, duty_turns(turns));
          },
          py::arg("lane"), py::arg("turns"))
      .def("set_latency", &Recorder::set_latency, py::arg("family"), py::arg("lane"),
           py::arg("bucket"), py::arg("latency_ns"));
}

void bind_scheduler_changes(py::class_<Recorder>& scheduler) {
  scheduler
      .def(
          "set_routes",
          [](Recorder& s, TenantId tenant, TimeNs now, std::optional<LaneId> lane,
             std::vector<double> lane_weights, bool move) {
            Routes routes{lane.value_or(kNone), std::move(lane_weights)};
            return acted(
                [&](Actions& out) { s.set_routes(tenant, std::move(routes), move, now, out); });
          },
          py::arg("tenant"), py::arg("now"), py::kw_only(), py::arg("lane") = py::none(),
          py::arg("lane_weights") = std::vector<double>{}, py::arg("move") = false)
      .def(
          "set_batch",
          [](Recorder& s, FamilyId family, LaneId lane, std::optional<std::uint32_t> samples,
             TimeNs now) {
            return acted([&](Actions& out) {
              s.set_batch(family, lane, samples.value_or(kNone), now, out);
            });
          },
          py::arg("family"), py::arg("lane"), py::arg("samples"), py::arg("now"))
      .def("close_lane", &Recorder::close_lane, py::arg("lane"))
      .def("load", &Recorder::load, py::arg("lane"));
}

void bind_scheduler_arrivals(py::class_<Recorder>& scheduler) {
  scheduler
      .def(
          "arrive",
          [](Recorder& s, RequestId id, TenantId tenant, TimeNs now, std::uint32_t samples,
             std::optional<std::int32_t> priority, std::optional<TimeNs> deadline) {
            const Request request{
                id, tenant, samples, priority.value_or(kTenants), now, deadline.value_or(kNever)};
            return acted([&](Actions& out) { s.arrive(request, now, out); });
          },
          py::arg("request"), py::arg("tenant"), py::arg("now"), py::kw_only(),
          py::arg("samples") = 1, py::arg("priority") = py::none(),
          py::arg("deadline") = py::none())
      .def(
          "arrive_all",
          [](Recorder& s, const std::vector<std::pair<RequestId, TenantId>>& requests, TimeNs now,
             std::optional<TimeNs> deadline) {
            std::vector<Request> burst;
            for (const auto& [id, tenant] : requests) {
              burst.push_back({id, tenant, 1, kTenants, now, deadline.value_or(kNever)});
            }
            return acted([&](Actions& out) { s.arrive(burst, now, out); });
          },
          py::arg("requests"), py::arg("now"), py::kw_only(), py::arg("deadline") = py::none());
}

void bind_scheduler_events(py::class_<Recorder>& scheduler) {
  scheduler
      .def(
          "cancel",
          [](Recorder& s, RequestId request, TimeNs now) {
            bool found = false;
            const py::list out =
                acted([&](Actions& actions) { found = s.cancel(request, now, actions); });
            return std::pair(found, out);
          },
          py::arg("request"), py::arg("now"))
      .def(
          "finish",
          [](Recorder& s, LaunchId launch, TimeNs now) {
            return acted([&](Actions& out) { s.finish(launch, now, out); });
          },
          py::arg("launch"), py::arg("now"))
      .def(
          "remove_tenant",
          [](Recorder& s, TenantId tenant, TimeNs now) {
            return acted([&](Actions& out) { s.remove_tenant(tenant, now, out); });
          },
          py::arg("tenant"), py::arg("now"))
      .def(
          "drop_all",
          [](Recorder& s, TimeNs now) {
            return acted([&](Actions& out) { s.drop_all(now, out); });
          },
          py::arg("now"))
      .def(
          "wake",
          [](Recorder& s, TimeNs now) { return acted([&](Actions& out) { s.wake(now, out); }); },
          py::arg("now"));
}

void bind_scheduler_questions(py::class_<Recorder>& scheduler) {
  scheduler
      .def_property_readonly("next_wake",
                             [](const Recorder& s) { return unless(s.next_wake(), kNever); })
      .def("recording",
           [](const Recorder& s) {
             std::string recording = s.recording();
             if (!recording.empty()) st::tape::seal(recording);
             return py::bytes(recording);
           })
      .def_property_readonly("waiting", &Recorder::waiting)
      .def_property_readonly("running", &Recorder::running)
      .def("straggling", &Recorder::straggling, py::arg("tenant"))
      .def("predicted_ns", &Recorder::predicted_ns, py::arg("family"), py::arg("lane"),
           py::arg("samples"));
}

void bind_replay(py::module_& m) {
  py::class_<Difference>(m, "Difference")
      .def_readonly("at_ns", &Difference::at_ns)
      .def_readonly("event", &Difference::event)
      .def_readonly("recorded", &Difference::recorded)
      .def_readonly("replayed", &Difference::replayed);
  py::class_<Replay>(m, "Replay")
      .def_readonly("events", &Replay::events)
      .def_readonly("requests", &Replay::requests)
      .def_readonly("starts", &Replay::starts)
      .def_readonly("drops", &Replay::drops)
      .def_readonly("span_ns", &Replay::span_ns)
      .def_readonly("complete", &Replay::complete)
      .def_readonly("difference", &Replay::difference);
  m.def(
      "replay",
      [](const std::string_view recording) {
        const py::gil_scoped_release release;
        return st::tape::replay(recording);
      },
      py::arg("recording"));
}

}  // namespace

void bind_scheduler(py::module_& m) {
  bind_policy(m);
  py::class_<Recorder> scheduler(m, "Scheduler");
  bind_scheduler_setup(scheduler);
  bind_scheduler_changes(scheduler);
  bind_scheduler_arrivals(scheduler);
  bind_scheduler_events(scheduler);
  bind_scheduler_questions(scheduler);
  bind_replay(m);
}
