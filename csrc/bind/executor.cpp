// executor.cpp: the executor and its lanes.
//
// Every call that can block gives the interpreter lock away, and gets it back only after the last
// C++ lock is released.
#include "rt/executor.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/cuda_device.h"
#include "bind/lane_handle.h"
#include "bind/records.h"
#include "bind/waiting.h"
#include "cpu/cpu.h"
#include "rt/roundtrip.h"

namespace py = pybind11;

namespace {

using namespace st::rt;

// A refusal with a Python class of its own, as Closed.
struct QueueFull : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] void raise(Refusal refusal, TenantId tenant) {
  const std::string who = "tenant " + std::to_string(tenant);
  switch (refusal) {
    case Refusal::kQueueFull:
      throw QueueFull(who + ": queue_limit requests are waiting already");
    case Refusal::kNoCapacity:
      throw QueueFull(who + ": the executor's capacity of requests is in flight already");
    case Refusal::kRemoved:
      throw Closed(who + " was removed");
    case Refusal::kClosed:
    case Refusal::kNone:
      break;
  }
  throw Closed("the executor is closed");
}

// What Python holds of an executor: its last reference closes it.
struct Owner {
  std::shared_ptr<Executor> executor;
  explicit Owner(std::shared_ptr<Executor> opened) : executor(std::move(opened)) {}
  Owner(Owner&&) = default;
  ~Owner() {
    if (!executor) return;
    const py::gil_scoped_release release;
    executor.reset();
  }
  Executor& operator()() const { return here(executor); }
};

Owner open_executor(const st::sched::Policy& policy, std::uint32_t capacity, std::size_t timeline,
                    std::size_t record, const std::shared_ptr<CudaDevice>& device) {
  std::shared_ptr<Backend> backend;
  if (device) {
    backend = device->backend;
  } else {
    backend = std::make_shared<st::cpu::Cpu>();
  }
  return Owner(Executor::open({policy, capacity, timeline, record}, std::move(backend)));
}

std::uint64_t submit(const Owner& owner, TenantId tenant, std::uint64_t token,
                     std::uint32_t samples, std::optional<TimeNs> deadline_ns,
                     std::optional<std::int32_t> priority) {
  Executor& executor = owner();
  const Submission submission{.tenant = tenant,
                              .samples = samples,
                              .priority = priority.value_or(st::sched::kTenants),
                              .deadline = until(deadline_ns),
                              .token = token};
  RequestId id = 0;
  // With lanes this takes a few microseconds; giving the interpreter lock away would cost more.
  std::optional<py::gil_scoped_release> release;
  if (executor.runs_inline()) release.emplace();
  const Refusal refusal = executor.submit(submission, id);
  release.reset();
  if (refusal != Refusal::kNone) raise(refusal, tenant);
  return id;
}

std::shared_ptr<Ticket> submit_bulk(const Owner& owner, std::vector<TenantId> tenants,
                                    std::optional<std::uint64_t> count, std::uint64_t first_token,
                                    std::uint32_t samples, std::optional<TimeNs> deadline_ns,
                                    std::optional<std::int32_t> priority, bool block) {
  if (tenants.empty()) throw std::invalid_argument("tenants: must name at least one");
  Executor& executor = owner();
  Bulk bulk;
  bulk.count = count.value_or(tenants.size());
  bulk.tenants = std::move(tenants);
  bulk.each = {
      .samples = samples, .priority = priority.value_or(st::sched::kTenants), .token = first_token};
  bulk.deadline_ns = deadline_ns.value_or(kNever);
  bulk.block = block;
  bulk.ticket = std::make_shared<Ticket>(bulk.count);
  bulk.ticket->open();
  try {
    patiently(kNever, [&](TimeNs slice) { return executor.submit_some(bulk, slice); });
  } catch (...) {
    bulk.ticket->settle(Outcome::kCancelled, bulk.count - bulk.next);
    throw;
  }
  return bulk.ticket;
}

py::object completions(const Owner& owner, std::size_t most, std::optional<TimeNs> timeout_ns) {
  Executor& executor = owner();
  std::vector<Completion> ended;
  bool open = true;
  patiently(until(timeout_ns), [&](TimeNs slice) {
    open = executor.completions(ended, most, slice);
    return !open || !ended.empty();
  });
  if (!open) return py::none();
  return completion_list(ended);
}

py::list timeline(const Owner& owner) {
  std::vector<Happening> happened;
  owner().timeline(happened);
  return happening_list(happened);
}

py::bytes recording(const Owner& owner) {
  Executor& executor = owner();
  std::string made;
  {
    const py::gil_scoped_release release;
    made = executor.recording();
  }
  return py::bytes(made);
}

bool close(const Owner& owner, bool drain, std::optional<TimeNs> timeout_ns) {
  Executor& executor = owner();
  const TimeNs end = until(timeout_ns);
  const bool main_thread = gettid() == getpid();
  const py::gil_scoped_release release;
  if (!main_thread) return executor.close(drain, end);
  return executor.close(drain, end, raise_signals);
}

std::vector<TimeNs> bench_roundtrip(const Owner& owner, TenantId tenant, std::uint32_t count) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  return roundtrip(executor, tenant, count);
}

void bind_ticket(py::module_& m) {
  py::class_<Ticket, std::shared_ptr<Ticket>>(m, "Ticket")
      .def_property_readonly("pending", &Ticket::pending)
      .def_property_readonly("counts", &outcome_counts)
      .def(
          "wait",
          [](Ticket& ticket, std::optional<TimeNs> timeout_ns) {
            return patiently(until(timeout_ns), [&](TimeNs slice) { return ticket.wait(slice); });
          },
          py::arg("timeout_ns") = py::none());
}

LaneHandle add_lane(const Owner& owner, const std::vector<std::uint32_t>& units, bool native,
                    bool borrows, int priority, std::optional<std::uint32_t> pool) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  return {executor.shared_from_this(),
          executor.add_lane(units, borrows, native, priority, pool.value_or(kNone))};
}

TenantId add_tenant(const Owner& owner, FamilyId family, std::int32_t priority, double weight,
                    std::uint32_t queue_limit, std::optional<LaneId> lane,
                    std::vector<double> lane_weights) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  return executor.add_tenant(
      {family, priority, weight, queue_limit, lane.value_or(kNone), std::move(lane_weights)});
}

void set_native(const Owner& owner, FamilyId family, const Native* function,
                std::optional<LaneId> lane) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  executor.set_native(family, function == nullptr ? Native{} : *function, lane.value_or(kNone));
}

void set_duty(const Owner& owner, LaneId lane,
              const std::vector<std::pair<TenantId, std::uint32_t>>& turns) {
  std::vector<st::sched::DutyTurn> duty;
  for (const auto& [tenant, batch] : turns) duty.push_back({tenant, batch});
  Executor& executor = owner();
  const py::gil_scoped_release release;
  executor.set_duty(lane, std::move(duty));
}

void set_routes(const Owner& owner, TenantId tenant, std::optional<LaneId> lane,
                std::vector<double> lane_weights, bool move) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  executor.set_routes(tenant, {lane.value_or(kNone), std::move(lane_weights)}, move);
}

void set_batch(const Owner& owner, FamilyId family, LaneId lane,
               std::optional<std::uint32_t> samples) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  executor.set_batch(family, lane, samples.value_or(kNone));
}

// unlocked: a member of the executor, called without the interpreter lock.
template <typename Result, typename... Args>
auto unlocked(Result (Executor::*member)(Args...)) {
  return [member](const Owner& owner, Args... args) {
    Executor& executor = owner();
    const py::gil_scoped_release release;
    return (executor.*member)(std::move(args)...);
  };
}

void bind_setup(py::class_<Owner>& executor) {
  executor
      .def(py::init(&open_executor), py::arg("policy"), py::kw_only(),
           py::arg("capacity") = Options{}.capacity, py::arg("timeline") = Options{}.timeline,
           py::arg("record") = Options{}.record, py::arg("device") = py::none())
      .def("add_lane", &add_lane, py::arg("units"), py::kw_only(), py::arg("native") = false,
           py::arg("borrows") = true, py::arg("priority") = 0, py::arg("pool") = py::none())
      .def("close_lane", unlocked(&Executor::close_lane), py::arg("lane"))
      .def(
          "add_family",
          [](const Owner& owner, std::vector<std::uint32_t> buckets) {
            return unlocked(&Executor::add_family)(owner, {std::move(buckets)});
          },
          py::arg("buckets"))
      .def("add_tenant", &add_tenant, py::arg("family"), py::kw_only(), py::arg("priority") = 0,
           py::arg("weight") = 1.0, py::arg("queue_limit") = st::sched::TenantSpec{}.queue_limit,
           py::arg("lane") = py::none(), py::arg("lane_weights") = std::vector<double>{})
      .def("remove_tenant", unlocked(&Executor::remove_tenant), py::arg("tenant"))
      .def("set_native", &set_native, py::arg("family"), py::arg("function"), py::kw_only(),
           py::arg("lane") = py::none())
      .def("set_latency", unlocked(&Executor::set_latency), py::arg("family"), py::arg("lane"),
           py::arg("bucket"), py::arg("latency_ns"))
      .def("set_duty", &set_duty, py::arg("lane"), py::arg("turns"))
      .def("set_routes", &set_routes, py::arg("tenant"), py::kw_only(),
           py::arg("lane") = py::none(), py::arg("lane_weights") = std::vector<double>{},
           py::arg("move") = false)
      .def("set_batch", &set_batch, py::arg("family"), py::arg("lane"), py::arg("samples"))
      .def("load", unlocked(&Executor::load), py::arg("lane"))
      .def("predicted_ns", unlocked(&Executor::predicted_ns), py::arg("family"), py::arg("lane"),
           py::arg("samples"))
      .def("straggling", unlocked(&Executor::straggling), py::arg("tenant"));
}

void bind_requests(py::class_<Owner>& executor) {
  executor
      .def("submit", &submit, py::arg("tenant"), py::arg("token"), py::kw_only(),
           py::arg("samples") = 1, py::arg("deadline_ns") = py::none(),
           py::arg("priority") = py::none())
      .def("submit_bulk", &submit_bulk, py::arg("tenants"), py::kw_only(),
           py::arg("count") = py::none(), py::arg("first_token") = 0, py::arg("samples") = 1,
           py::arg("deadline_ns") = py::none(), py::arg("priority") = py::none(),
           py::arg("block") = true)
      .def("cancel", unlocked(&Executor::cancel), py::arg("request"))
      .def("completions", &completions, py::arg("most") = 1024, py::arg("timeout_ns") = py::none())
      .def("timeline", &timeline)
      .def("recording", &recording)
      .def("stats", unlocked(&Executor::counters))
      .def("close", &close, py::kw_only(), py::arg("drain") = true,
           py::arg("timeout_ns") = py::none())
      .def("bench_roundtrip", &bench_roundtrip, py::arg("tenant"), py::arg("count"));
}

void bind_counters(py::module_& m) {
  py::class_<Counters>(m, "ExecutorStats")
      .def_property_readonly("tenants", [](const Counters& c) { return c.stats.tenants(); })
      .def_property_readonly("lanes", [](const Counters& c) { return c.stats.lanes(); })
      .def_readonly("failed", &Counters::failed)
      .def_readonly("refused", &Counters::refused)
      .def_readonly("in_flight", &Counters::in_flight)
      .def_readonly("waiting", &Counters::waiting)
      .def_readonly("running", &Counters::running)
      .def_readonly("timeline_lost", &Counters::timeline_lost);
}

}  // namespace

void bind_executor(py::module_& m) {
  py::register_exception<QueueFull>(m, "QueueFullError", PyExc_RuntimeError);
  py::register_exception<Closed>(m, "ClosedError", PyExc_RuntimeError);
  m.attr("NO_FUNCTION") = kNoFunction;
  m.attr("LANE_FAILED") = kLaneFailed;
  m.def("available_cores", [] { return st::cpu::Cpu().available(); });
  bind_records(m);
  bind_lane(m);
  bind_ticket(m);
  bind_counters(m);
  py::class_<Owner> executor(m, "Executor");
  bind_setup(executor);
  bind_requests(executor);
}
