// cuda.cpp: CUDA devices, partitions, memory, graphs and runners.
//
// Every call that reaches the driver gives the interpreter lock away: a fake's host functions take
// it, and the real driver may block.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/cuda_device.h"
#include "bind/dlpack.h"
#include "bind/lane_handle.h"
#include "cuda/capture.h"
#include "cuda/runner.h"

namespace py = pybind11;

namespace {

using namespace st::cuda;

using Unlocked = py::call_guard<py::gil_scoped_release>;

std::uint64_t number(const void* handle) { return reinterpret_cast<std::uint64_t>(handle); }

// A Python object that lives until the last C++ owner lets go, on any thread.
std::shared_ptr<void> kept(const py::object& object) {
  PyObject* held = object.inc_ref().ptr();
  return {held, [](void* dropped) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            Py_DECREF(static_cast<PyObject*>(dropped));
          }};
}

CudaDevice open_device(int ordinal, const std::string& library, unsigned unit_sms, bool domains) {
  const std::shared_ptr<Device> device = Device::open(load(library), ordinal);
  return {device, std::make_shared<SmBackend>(device, Division{unit_sms, domains})};
}

py::dict features(const CudaDevice& self) {
  py::dict found;
  for (const Feature& feature : self.device->features()) {
    found[py::str(feature.name)] = feature.reason;
  }
  found["work queues of one's own"] = self.backend->why_shared_queues();
  return found;
}

std::optional<std::pair<std::string, int>> lost(const CudaDevice& self) {
  const auto found = self.device->lost();
  if (!found) return std::nullopt;
  return std::pair{std::string(name_of(found->first)), found->second};
}

void bind_device(py::module_& m) {
  py::class_<CudaDevice, std::shared_ptr<CudaDevice>>(m, "CudaDevice")
      .def_static("open", &open_device, py::arg("ordinal") = 0, py::kw_only(),
                  py::arg("library") = "libcuda.so.1", py::arg("unit_sms") = 0,
                  py::arg("domains") = false, Unlocked())
      .def_property_readonly("name", [](const CudaDevice& s) { return s.device->facts().name; })
      .def_property_readonly("driver_version",
                             [](const CudaDevice& s) { return s.device->facts().driver_version; })
      .def_property_readonly("capability",
                             [](const CudaDevice& s) {
                               const DeviceFacts& facts = s.device->facts();
                               return std::pair{facts.major, facts.minor};
                             })
      .def_property_readonly("sms", [](const CudaDevice& s) { return s.device->facts().sms; })
      .def_property_readonly("l2_bytes",
                             [](const CudaDevice& s) { return s.device->facts().l2_bytes; })
      .def_property_readonly("priorities",
                             [](const CudaDevice& s) {
                               const DeviceFacts& facts = s.device->facts();
                               return facts.least_priority - facts.greatest_priority;
                             })
      .def_property_readonly("unit_sms",
                             [](const CudaDevice& s) { return s.backend->topology().sms; })
      .def_property_readonly("unit_domains",
                             [](const CudaDevice& s) { return s.backend->topology().domains; })
      .def_property_readonly("has_remainder",
                             [](const CudaDevice& s) { return s.backend->topology().remainder; })
      .def_property_readonly("why_unbounded",
                             [](const CudaDevice& s) { return s.backend->why_unbounded(); })
      .def_property_readonly("features", &features)
      .def_property_readonly("contexts", [](const CudaDevice& s) { return s.backend->contexts(); })
      .def_property_readonly("lost", &lost)
      .def(
          "memory", [](const CudaDevice& s) { return s.device->memory(); }, Unlocked())
      .def(
          "synchronize", [](const CudaDevice& s) { s.device->synchronize(); }, Unlocked())
      .def("ladder", [](const CudaDevice& s) { return ladder(s.backend->topology()); })
      .def(
          "why_not",
          [](const CudaDevice& s, const Units& units) { return s.backend->why_not(units); },
          py::arg("units"), Unlocked())
      .def_property_readonly("refused",
                             [](const CudaDevice& s) {
                               const auto refused = s.backend->refused();
                               return std::vector<std::pair<Units, std::string>>(refused.begin(),
                                                                                 refused.end());
                             })
      .def(
          "partition",
          [](const CudaDevice& s, const std::vector<std::uint32_t>& units, int priority) {
            std::shared_ptr<st::rt::Partition> opened = s.backend->open(units, priority);
            return std::static_pointer_cast<SmPartition>(opened);
          },
          py::arg("units"), py::kw_only(), py::arg("priority") = 0, Unlocked());
}

// A lane's partition where it is one of SMs; the executor owns it, so the lane is kept with it.
std::shared_ptr<SmPartition> partition_of(const LaneHandle& lane) {
  auto* partition = dynamic_cast<SmPartition*>(lane.lane().partition());
  if (partition == nullptr) throw std::invalid_argument("lane: its partition is of no CUDA device");
  return {lane.executor, partition};
}

void bind_partition(py::module_& m) {
  py::class_<SmPartition, std::shared_ptr<SmPartition>>(m, "SmPartition")
      .def_property_readonly("units", &SmPartition::granted)
      .def_property_readonly("sms", &SmPartition::units)
      .def_property_readonly("bounded", &SmPartition::bounded)
      .def_property_readonly("context", [](const SmPartition& p) { return number(p.context()); })
      .def_property_readonly("stream",
                             [](const SmPartition& p) { return number(p.stream()->handle()); })
      .def_property_readonly("capture_stream",
                             [](const SmPartition& p) { return number(p.capture()->handle()); })
      .def_property_readonly("warm_stream",
                             [](const SmPartition& p) { return number(p.warm()->handle()); })
      // The protocol by which CuPy and others take a stream over: (version, handle).
      .def("__cuda_stream__",
           [](const SmPartition& p) { return std::pair{0, number(p.stream()->handle())}; });
  m.def("partition_of", &partition_of, py::arg("lane"));
}

void bind_memory(py::module_& m) {
  py::class_<Memory, std::shared_ptr<Memory>>(m, "Memory")
      .def_property_readonly("address", &Memory::address)
      .def_property_readonly("nbytes", &Memory::bytes)
      .def_property_readonly("on_device", &Memory::on_device)
      .def("view", &dltensor, py::arg("offset"), py::arg("shape"), py::arg("strides"),
           py::arg("code"), py::arg("bits"), py::arg("host") = false);
  py::class_<DeviceMemory, Memory, std::shared_ptr<DeviceMemory>>(m, "DeviceMemory")
      .def(py::init([](const CudaDevice& device, std::size_t bytes) {
             return std::make_shared<DeviceMemory>(device.device, bytes);
           }),
           py::arg("device"), py::arg("nbytes"), Unlocked());
  py::class_<PinnedMemory, Memory, std::shared_ptr<PinnedMemory>>(m, "PinnedMemory")
      .def(py::init([](const CudaDevice& device, std::size_t bytes) {
             return std::make_shared<PinnedMemory>(device.device, bytes);
           }),
           py::arg("device"), py::arg("nbytes"), Unlocked());
  py::class_<Arena, Memory, std::shared_ptr<Arena>>(m, "Arena")
      .def(py::init([](const CudaDevice& device, std::size_t row_bytes, std::size_t rows,
                       std::optional<std::size_t> least) {
             return std::make_shared<Arena>(device.device, row_bytes, rows, least.value_or(rows));
           }),
           py::arg("device"), py::kw_only(), py::arg("row_bytes"), py::arg("rows"),
           py::arg("least") = py::none(), Unlocked())
      .def_property_readonly("row_bytes", &Arena::row_bytes)
      .def_property_readonly("rows", &Arena::rows)
      .def_property_readonly("mapped_bytes", &Arena::mapped_bytes)
      .def("map", &Arena::map, py::arg("row"), Unlocked())
      .def("unmap", &Arena::unmap, py::arg("row"), Unlocked());
}

void bind_graphs(py::module_& m) {
  py::class_<Exec, std::shared_ptr<Exec>>(m, "GraphExec")
      .def_static(
          "borrow",
          [](const CudaDevice& device, std::uint64_t handle, const py::object& keeper) {
            return std::make_shared<Exec>(device.device, reinterpret_cast<CUgraphExec>(handle),
                                          kept(keeper));
          },
          py::arg("device"), py::arg("handle"), py::arg("keeper"))
      .def_property_readonly("handle", [](const Exec& e) { return number(e.handle()); })
      .def_property_readonly("graph", [](const Exec& e) {
        return e.graph() == nullptr ? 0 : number(e.graph()->handle());
      });
  m.def(
      "kernel_contexts",
      [](const CudaDevice& device, std::uint64_t graph) {
        std::vector<std::uint64_t> found;
        for (CUcontext each : kernel_contexts(*device.device, reinterpret_cast<CUgraph>(graph))) {
          found.push_back(number(each));
        }
        return found;
      },
      py::arg("device"), py::arg("graph"), Unlocked());
}

std::vector<const Payload*> pointers(const std::vector<std::shared_ptr<Payload>>& payloads) {
  std::vector<const Payload*> found;
  for (const auto& payload : payloads) found.push_back(payload.get());
  return found;
}

std::vector<std::size_t> offsets(const BlockLayout& block) { return block.offsets; }

void bind_runner(py::module_& m) {
  py::class_<Payload, std::shared_ptr<Payload>>(m, "Payload")
      .def(py::init([](std::uint32_t member, std::uint32_t samples,
                       std::vector<std::uint64_t> inputs, std::vector<std::uint64_t> outputs,
                       bool on_device, std::uint64_t ready) {
             return std::make_shared<Payload>(Payload{member, samples, std::move(inputs),
                                                      std::move(outputs), on_device,
                                                      reinterpret_cast<CUevent>(ready)});
           }),
           py::arg("member"), py::arg("samples"), py::arg("inputs"), py::arg("outputs"),
           py::kw_only(), py::arg("on_device") = false, py::arg("ready") = 0)
      .def_property_readonly("token", [](const Payload& p) { return number(&p); });
  py::class_<Runner, std::shared_ptr<Runner>>(m, "Runner")
      .def(py::init([](const CudaDevice& device, const SmPartition& partition,
                       std::vector<std::size_t> inputs, std::vector<std::size_t> outputs,
                       std::vector<std::uint32_t> buckets, std::int64_t spin_ns) {
             return std::make_shared<Runner>(device.device, partition.stream(), std::move(inputs),
                                             std::move(outputs), std::move(buckets), spin_ns);
           }),
           py::arg("device"), py::arg("partition"), py::kw_only(), py::arg("inputs"),
           py::arg("outputs"), py::arg("buckets"), py::arg("spin_ns") = 0, Unlocked())
      .def_property_readonly(
          "input_block",
          [](const Runner& r) { return std::static_pointer_cast<Memory>(r.input_block()); })
      .def_property_readonly(
          "output_block",
          [](const Runner& r) { return std::static_pointer_cast<Memory>(r.output_block()); })
      .def(
          "input_offsets",
          [](const Runner& r, std::uint32_t bucket) { return offsets(r.input_layout(bucket)); },
          py::arg("bucket"))
      .def(
          "output_offsets",
          [](const Runner& r, std::uint32_t bucket) { return offsets(r.output_layout(bucket)); },
          py::arg("bucket"))
      .def("add", &Runner::add, py::arg("bucket"), py::arg("graph"), Unlocked())
      .def("clear", &Runner::clear, Unlocked())
      .def(
          "time",
          [](Runner& r, const std::vector<std::shared_ptr<Payload>>& payloads) {
            const std::vector<const Payload*> requests = pointers(payloads);
            const py::gil_scoped_release release;
            return r.time(requests);
          },
          py::arg("payloads"))
      .def_property_readonly("function", &Runner::native);
}

}  // namespace

void bind_cuda(py::module_& m) {
  // Users catch spacetime.errors.DriverError, which is made when it is raised: this module knows
  // nothing above it at import.
  py::register_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const DriverError& error) {
      const py::object type = py::module_::import("spacetime.errors").attr("DriverError");
      const py::object made = type(std::string(name_of(error.call)), error.code, error.what());
      PyErr_SetObject(type.ptr(), made.ptr());
    } catch (const DriverMissing& error) {
      const py::object type = py::module_::import("spacetime.errors").attr("UnsupportedError");
      PyErr_SetObject(type.ptr(), type(error.what()).ptr());
    } catch (const PartitionRefused& error) {
      const py::object type = py::module_::import("spacetime.errors").attr("UnsupportedError");
      PyErr_SetObject(type.ptr(), type(error.what()).ptr());
    }
  });
  m.def(
      "driver_initialized", [](const std::string& library) { return initialized(library); },
      py::arg("library") = "libcuda.so.1", Unlocked());
  m.def(
      "driver_failure",
      [](std::int32_t code) {
        return std::pair{std::string(name_of(call_of(code))), code_of(code)};
      },
      py::arg("code"));
  bind_partition(m);
  bind_device(m);
  bind_memory(m);
  bind_graphs(m);
  bind_runner(m);
}
