// records.cpp: built with the C API: struct sequences cost what plain tuples cost.
#include "bind/records.h"

#include <array>
#include <string>
#include <string_view>

#include "sched/names.h"

namespace py = pybind11;

namespace {

using namespace st::rt;

constexpr std::size_t kFields = 11;  // of either record

PyTypeObject* completion_type = nullptr;
PyTypeObject* happening_type = nullptr;
std::array<PyObject*, kOutcomes> outcome_words{};  // owned for the life of the process

PyObject* word(Outcome outcome) {
  return Py_NewRef(outcome_words[static_cast<std::size_t>(outcome)]);
}

PyObject* number(std::int64_t value) { return PyLong_FromLongLong(value); }
PyObject* name(std::uint64_t value) { return PyLong_FromUnsignedLongLong(value); }
PyObject* number_or_none(std::uint32_t value) {
  return value == kNone ? Py_NewRef(Py_None) : number(value);
}

py::object record(PyTypeObject* type, const std::array<PyObject*, kFields>& fields) {
  PyObject* made = PyStructSequence_New(type);
  if (made == nullptr) throw py::error_already_set();
  for (std::size_t i = 0; i < kFields; ++i) PyStructSequence_SetItem(made, i, fields[i]);
  return py::reinterpret_steal<py::object>(made);
}

py::object completion_record(const Completion& end) {
  const bool started = end.lane != kNone;
  const auto if_started = [&](std::int64_t value) {
    return started ? number(value) : Py_NewRef(Py_None);
  };
  return record(completion_type,
                {name(end.token), number(end.tenant), word(end.outcome), number(end.code),
                 number(end.arrival_ns), if_started(end.start_ns), number(end.finish_ns),
                 if_started(static_cast<std::int64_t>(end.launch)), if_started(end.lane),
                 number(end.samples), number(end.tenants)});
}

py::object happening_record(const Happening& what) {
  return record(
      happening_type,
      {name(what.id), number_or_none(what.lane), number_or_none(what.family), number(what.tenant),
       word(what.outcome), number(what.start_ns), number(what.finish_ns), number(what.bucket),
       number(what.samples), number(what.requests), number(what.tenants)});
}

template <typename Record>
py::list listed(const std::vector<Record>& records, py::object (*make)(const Record&)) {
  py::list out(records.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    PyList_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), make(records[i]).release().ptr());
  }
  return out;
}

// add_type: `full_name` keeps the type's name, which CPython does not copy.
PyTypeObject* add_type(py::module_& m, const char* name, const char* doc,
                       PyStructSequence_Field* fields, std::string& full_name) {
  full_name = py::cast<std::string>(m.attr("__name__")) + "." + name;
  PyStructSequence_Desc description{full_name.c_str(), doc, fields, kFields};
  PyTypeObject* type = PyStructSequence_NewType(&description);
  if (type == nullptr) throw py::error_already_set();
  m.attr(name) = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(type));
  return type;
}

PyStructSequence_Field completion_fields[] = {
    {"token", nullptr},      {"tenant", nullptr},   {"outcome", nullptr},   {"code", nullptr},
    {"arrival_ns", nullptr}, {"start_ns", nullptr}, {"finish_ns", nullptr}, {"launch", nullptr},
    {"lane", nullptr},       {"samples", nullptr},  {"tenants", nullptr},   {nullptr, nullptr}};
PyStructSequence_Field happening_fields[] = {
    {"id", nullptr},      {"lane", nullptr},     {"family", nullptr},    {"tenant", nullptr},
    {"outcome", nullptr}, {"start_ns", nullptr}, {"finish_ns", nullptr}, {"bucket", nullptr},
    {"samples", nullptr}, {"requests", nullptr}, {"tenants", nullptr},   {nullptr, nullptr}};

}  // namespace

py::list completion_list(const std::vector<Completion>& ended) {
  return listed(ended, completion_record);
}

py::list happening_list(const std::vector<Happening>& happened) {
  return listed(happened, happening_record);
}

py::dict outcome_counts(const Ticket& ticket) {
  py::dict counts;
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    counts[py::handle(outcome_words[i])] = ticket.count(static_cast<Outcome>(i));
  }
  return counts;
}

void bind_records(py::module_& m) {
  py::tuple words(kOutcomes);
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    // The outcomes after the first two are the scheduler's drop reasons (request.h).
    const std::string_view text = i == 0 ? "ok" : i == 1 ? "failed" : st::sched::kDropNames[i - 2];
    const py::str outcome(text.data(), text.size());
    words[i] = outcome;
    outcome_words[i] = Py_NewRef(outcome.ptr());
  }
  m.attr("OUTCOMES") = words;
  static std::string completion_name, happening_name;
  completion_type =
      add_type(m, "Completion", "How a request ended.", completion_fields, completion_name);
  happening_type = add_type(m, "Happening", "A launch, or a request that ended without one.",
                            happening_fields, happening_name);
}
