// lane.cpp: lanes, the launches taken from them, and native functions.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/lane_handle.h"
#include "bind/waiting.h"

namespace py = pybind11;

namespace {

using namespace st::rt;

// A foreign launch, copied out: it stays readable after it is finished.
struct Taken {
  st::sched::Start start;
  std::vector<std::uint64_t> tokens;
  std::vector<TenantId> tenants;
  std::vector<std::uint32_t> request_samples;
};

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

void bind_launches(py::module_& m) {
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
      .def_property_readonly("granted",
                             [](const LaneHandle& h) { return h.lane().partition()->granted(); })
      .def_property_readonly("size",
                             [](const LaneHandle& h) { return h.lane().partition()->units(); })
      .def_property_readonly("closed", [](const LaneHandle& h) { return h.lane().closed(); })
      .def("enter", [](const LaneHandle& h) { h.lane().partition()->enter(); })
      .def("leave", [](const LaneHandle& h) { h.lane().partition()->leave(); })
      .def("take", &take, py::arg("timeout_ns") = py::none())
      .def("finish", &finish, py::arg("launch"), py::arg("statuses") = py::none())
      .def(
          "fail", [](const LaneHandle& h) { h().fail(h.id); },
          py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_lane(py::module_& m) {
  bind_native(m);
  bind_launches(m);
}
