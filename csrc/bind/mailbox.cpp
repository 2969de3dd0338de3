// mailbox.cpp: the two sides of a lane in a process of its own.
#include "rt/mailbox.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/waiting.h"

namespace py = pybind11;

namespace {

using namespace st::rt;

// call: asks and waits; whether it was answered, false where the other side is lost.
bool call(Mailbox& mailbox) {
  mailbox.ask();
  patiently(kNever, [&](TimeNs slice) { return mailbox.settled(slice); });
  return mailbox.answered();
}

bool next(Mailbox& mailbox, std::optional<TimeNs> timeout_ns) {
  return patiently(until(timeout_ns), [&](TimeNs slice) { return mailbox.next(slice); });
}

}  // namespace

void bind_mailbox(py::module_& m) {
  py::class_<Mailbox, std::shared_ptr<Mailbox>>(m, "Mailbox")
      .def(py::init<int>(), py::arg("fd"))
      .def_readonly_static("BYTES", &Mailbox::kBytes)
      .def("call", &call)
      .def("lose", &Mailbox::lose)
      .def_property_readonly("lost", &Mailbox::lost)
      .def("next", &next, py::arg("timeout_ns") = py::none())
      .def("answer", &Mailbox::answer)
      .def_property_readonly("beats", &Mailbox::beats);
  py::class_<Heart>(m, "Heart")
      .def(py::init<std::shared_ptr<Mailbox>, TimeNs, int>(), py::arg("mailbox"),
           py::arg("interval_ns"), py::arg("parent") = 0);
}
