// bind_rt.cpp: the executor and its lanes.
//
// Every call that can block gives the interpreter lock away, and gets it back only after the last
// C++ lock is released.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/records.h"
#include "cpu/cpu.h"
#include "rt/executor.h"
#include "rt/roundtrip.h"

namespace py = pybind11;

namespace {

using namespace st::rt;

constexpr TimeNs kSliceNs = 50'000'000;  // how often the main thread looks for signals as it waits

TimeNs until(std::optional<TimeNs> timeout_ns) { return timeout_ns ? after(*timeout_ns) : kNever; }

void raise_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// patiently: calls wait(until) without the interpreter lock until it returns true or time is up;
// on the main thread in slices, so that Ctrl-C works.
template <typename Wait>
bool patiently(TimeNs end, Wait wait) {
  const py::gil_scoped_release release;
  if (gettid() != getpid()) return wait(end);
  for (;;) {
    const TimeNs slice = std::min(end, after(kSliceNs));
    if (wait(slice)) return true;
    if (now_ns() >= end) return false;
    raise_signals();
  }
}

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

Executor& here(const std::shared_ptr<Executor>& executor) {
  if (executor->forked()) {
    throw std::runtime_error(
        "this executor was opened before a fork; open one in the child process");
  }
  return *executor;
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

// What Python holds of a lane: the executor's memory, but not its being open.
struct LaneHandle {
  std::shared_ptr<Executor> executor;
  LaneId id;
  Executor& operator()() const { return here(executor); }
  Lane& lane() const { return here(executor).lane(id); }
};

// A foreign launch, copied out: it stays readable after it is finished.
struct Taken {
  st::sched::Start start;
  std::vector<std::uint64_t> tokens;
  std::vector<TenantId> tenants;
  std::vector<std::uint32_t> request_samples;
};

Owner open_executor(const st::sched::Policy& policy, std::uint32_t capacity, std::size_t timeline) {
  return Owner(Executor::open({policy, capacity, timeline}, std::make_shared<st::cpu::Cpu>()));
}

std::uint64_t submit(const Owner& owner, TenantId tenant, std::uint64_t token,
                     std::uint32_t samples, std::optional<TimeNs> deadline_ns,
                     std::int32_t priority) {
  Executor& executor = owner();
  const Submission submission{.tenant = tenant,
                              .samples = samples,
                              .priority = priority,
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
                                    std::int32_t priority, bool block) {
  if (tenants.empty()) throw std::invalid_argument("tenants: must name at least one");
  Executor& executor = owner();
  Bulk bulk;
  bulk.count = count.value_or(tenants.size());
  bulk.tenants = std::move(tenants);
  bulk.each = {.samples = samples, .priority = priority, .token = first_token};
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

std::optional<Taken> take(const LaneHandle& handle, std::optional<TimeNs> timeout_ns) {
  Executor& executor = handle();
  Launch* launch = nullptr;
  patiently(until(timeout_ns), [&](TimeNs slice) {
    launch = executor.take(handle.id, slice);
    return launch != nullptr || executor.lane(handle.id).closed();
  });
  if (launch == nullptr) return std::nullopt;
  return Taken{launch->start, launch->tokens, launch->tenants, launch->samples};
}

bool finish(const LaneHandle& handle, const Taken& launch,
            std::optional<std::vector<std::int32_t>> statuses) {
  const std::vector<std::int32_t> codes = std::move(statuses).value_or(std::vector<std::int32_t>{});
  return handle().finish(handle.id, launch.start.launch, codes);
}

Native from_capsule(const py::capsule& function, const py::object& context) {
  if (function.name() == nullptr || std::string_view(function.name()) != "st_native_function") {
    throw std::invalid_argument("function: expected a capsule named 'st_native_function'");
  }
  Native native;
  native.function = {reinterpret_cast<st_native_function>(function.get_pointer()),
                     context.is_none() ? nullptr : py::capsule(context).get_pointer()};
  // The last reference may fall on any thread, none of which holds the interpreter lock then.
  PyObject* kept = py::make_tuple(function, context).release().ptr();
  native.owner = std::shared_ptr<void>(kept, [](void* tuple) {
    if (!Py_IsInitialized()) return;
    const py::gil_scoped_acquire gil;
    Py_DECREF(static_cast<PyObject*>(tuple));
  });
  return native;
}

void bind_native(py::module_& m) {
  py::class_<Native>(m, "NativeFunction")
      .def_static("noop", &noop)
      .def_static("spin", &spin, py::arg("busy_ns"))
      .def_static("fail", &fail, py::arg("code"))
      .def_static("from_capsule", &from_capsule, py::arg("function"),
                  py::arg("context") = py::none());
  py::class_<Latch, std::shared_ptr<Latch>>(m, "Latch")
      .def(py::init<>())
      .def_property_readonly("function", &Latch::native)
      .def_property_readonly("entered", &Latch::entered)
      .def("release", &Latch::release, py::arg("launches") = 1)
      .def("open", &Latch::open)
      .def(
          "wait_entered",
          [](Latch& latch, std::uint64_t launches, std::optional<TimeNs> timeout_ns) {
            return patiently(until(timeout_ns),
                             [&](TimeNs slice) { return latch.wait_entered(launches, slice); });
          },
          py::arg("launches") = 1, py::arg("timeout_ns") = py::none());
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

void bind_lane(py::module_& m) {
  py::class_<Taken>(m, "Launch")
      .def_property_readonly("id", [](const Taken& t) { return t.start.launch; })
      .def_property_readonly("lane", [](const Taken& t) { return t.start.lane; })
      .def_property_readonly("family", [](const Taken& t) { return t.start.family; })
      .def_property_readonly("bucket", [](const Taken& t) { return t.start.bucket; })
      .def_property_readonly("samples", [](const Taken& t) { return t.start.samples; })
      .def_readonly("tokens", &Taken::tokens)
      .def_readonly("tenants", &Taken::tenants)
      .def_readonly("request_samples", &Taken::request_samples);
  py::class_<LaneHandle>(m, "Lane")
      .def_readonly("id", &LaneHandle::id)
      .def_property_readonly("granted_cores",
                             [](const LaneHandle& h) { return h.lane().partition()->granted(); })
      .def_property_readonly("closed", [](const LaneHandle& h) { return h.lane().closed(); })
      .def("enter", [](const LaneHandle& h) { h.lane().partition()->enter(); })
      .def("leave", [](const LaneHandle& h) { h.lane().partition()->leave(); })
      .def("take", &take, py::arg("timeout_ns") = py::none())
      .def("finish", &finish, py::arg("launch"), py::arg("statuses") = py::none())
      .def(
          "fail", [](const LaneHandle& h) { h().fail(h.id); },
          py::call_guard<py::gil_scoped_release>());
}

LaneHandle add_lane(const Owner& owner, const std::vector<std::uint32_t>& cores, bool native,
                    bool borrows) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  return {executor.shared_from_this(), executor.add_lane(cores, borrows, native)};
}

TenantId add_tenant(const Owner& owner, FamilyId family, std::int32_t priority, double weight,
                    std::uint32_t queue_limit, std::optional<LaneId> lane,
                    std::vector<double> lane_weights) {
  Executor& executor = owner();
  const py::gil_scoped_release release;
  return executor.add_tenant(
      {family, priority, weight, queue_limit, lane.value_or(kNone), std::move(lane_weights)});
}

void set_duty(const Owner& owner, LaneId lane,
              const std::vector<std::pair<TenantId, std::uint32_t>>& turns) {
  std::vector<st::sched::DutyTurn> duty;
  for (const auto& [tenant, batch] : turns) duty.push_back({tenant, batch});
  Executor& executor = owner();
  const py::gil_scoped_release release;
  executor.set_duty(lane, std::move(duty));
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
           py::arg("capacity") = Options{}.capacity, py::arg("timeline") = Options{}.timeline)
      .def("add_lane", &add_lane, py::arg("cores"), py::kw_only(), py::arg("native") = false,
           py::arg("borrows") = true)
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
      .def("set_native", unlocked(&Executor::set_native), py::arg("family"), py::arg("function"))
      .def("set_latency", unlocked(&Executor::set_latency), py::arg("family"), py::arg("lane"),
           py::arg("bucket"), py::arg("latency_ns"))
      .def("set_duty", &set_duty, py::arg("lane"), py::arg("turns"))
      .def("predicted_ns", unlocked(&Executor::predicted_ns), py::arg("family"), py::arg("lane"),
           py::arg("samples"))
      .def("straggling", unlocked(&Executor::straggling), py::arg("tenant"));
}

void bind_requests(py::class_<Owner>& executor) {
  executor
      .def("submit", &submit, py::arg("tenant"), py::arg("token"), py::kw_only(),
           py::arg("samples") = 1, py::arg("deadline_ns") = py::none(), py::arg("priority") = 0)
      .def("submit_bulk", &submit_bulk, py::arg("tenants"), py::kw_only(),
           py::arg("count") = py::none(), py::arg("first_token") = 0, py::arg("samples") = 1,
           py::arg("deadline_ns") = py::none(), py::arg("priority") = 0, py::arg("block") = true)
      .def("cancel", unlocked(&Executor::cancel), py::arg("request"))
      .def("completions", &completions, py::arg("most") = 1024, py::arg("timeout_ns") = py::none())
      .def("timeline", &timeline)
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

void bind_rt(py::module_& m) {
  py::register_exception<QueueFull>(m, "QueueFullError", PyExc_RuntimeError);
  py::register_exception<Closed>(m, "ClosedError", PyExc_RuntimeError);
  m.attr("NO_FUNCTION") = kNoFunction;
  m.attr("LANE_FAILED") = kLaneFailed;
  m.def("available_cores", [] { return st::cpu::Cpu().available(); });
  bind_records(m);
  bind_native(m);
  bind_ticket(m);
  bind_lane(m);
  bind_counters(m);
  py::class_<Owner> executor(m, "Executor");
  bind_setup(executor);
  bind_requests(executor);
}
