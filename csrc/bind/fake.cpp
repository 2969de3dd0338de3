// fake.cpp: devices that are simulated, in virtual time, and faults in the driver's calls.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bind/cuda_device.h"
#include "bind/waiting.h"
#include "cuda/capture.h"
#include "fake/fake_driver.h"
#include "fake/faulty.h"

namespace py = pybind11;

namespace {

using namespace st::cuda;
using st::fake::FakeDriver;
using st::fake::FaultyDriver;

using Unlocked = py::call_guard<py::gil_scoped_release>;

// A simulated driver behind a wrapper that can make its calls fail.
struct FakeDriverHandle {
  std::shared_ptr<FakeDriver> fake;
  std::shared_ptr<FaultyDriver> faulty;
  bool libraries_fork;
};

struct FakeCudaDevice : CudaDevice {
  FakeDriverHandle driver;
};

FakeDriverHandle make_driver(const std::string& model, int driver_version, std::size_t memory_bytes,
                             bool interference, unsigned whole_groups, unsigned smallest_context,
                             bool remainder_merges, std::size_t address_bytes,
                             bool libraries_fork) {
  st::fake::FakeOptions options;
  options.device = model;
  options.driver_version = driver_version;
  options.memory_bytes = memory_bytes;
  options.interference = interference;
  options.whole_groups = whole_groups;
  options.smallest_context = smallest_context;
  options.remainder_merges = remainder_merges;
  options.address_bytes = address_bytes;
  auto fake = std::make_shared<FakeDriver>(options);
  return {fake, std::make_shared<FaultyDriver>(fake), libraries_fork};
}

std::shared_ptr<FakeCudaDevice> open_fake(const FakeDriverHandle& driver, unsigned unit_sms,
                                          bool domains) {
  const py::gil_scoped_release release;
  auto opened = std::make_shared<FakeCudaDevice>();
  opened->driver = driver;
  opened->device = Device::open(driver.faulty, 0);
  opened->backend = std::make_shared<SmBackend>(opened->device, Division{unit_sms, domains});
  return opened;
}

Entry entry_named(const std::string& name) {
  for (std::size_t i = 0; i < kEntries; ++i) {
    if (name_of(static_cast<Entry>(i)) == name) return static_cast<Entry>(i);
  }
  throw std::invalid_argument("call: there is no driver call '" + name + "'");
}

void fail(const FakeDriverHandle& self, std::uint64_t nth, int code,
          const std::optional<std::string>& call, bool sticky) {
  st::fake::Fault fault;
  if (call) fault.entry = entry_named(*call);
  fault.nth = nth;
  fault.code = code;
  fault.sticky = sticky;
  self.faulty->fail(fault);
}

std::vector<std::string> failed(const FakeDriverHandle& self) {
  std::vector<std::string> names;
  for (const Entry entry : self.faulty->failed()) names.emplace_back(name_of(entry));
  return names;
}

// What a captured program does when its kernel's time has come. It runs on whichever thread waits
// for the device. One that raises is what an assertion in a kernel is: the device is lost.
struct Effect {
  PyObject* call;
  FakeDriver* fake;
};

void run_effect(void* data) {
  constexpr CUresult kAssert = 710;
  auto* effect = static_cast<Effect*>(data);
  if (!Py_IsInitialized()) return;
  const py::gil_scoped_acquire gil;
  PyObject* result = PyObject_CallNoArgs(effect->call);
  if (result == nullptr) {
    PyErr_WriteUnraisable(effect->call);
    effect->fake->poison(kAssert);
    return;
  }
  Py_DECREF(result);
}

void drop_effect(Effect* effect) {
  if (Py_IsInitialized()) {
    const py::gil_scoped_acquire gil;
    Py_DECREF(effect->call);
  }
  delete effect;
}

// The kernel goes to a stream of the whole device, between two events of the one that captures, as
// libraries do that have streams of their own.
void fork(const FakeCudaDevice& self, const Stream& home, const Stream& side, CUfunction kernel) {
  const Device& device = *self.device;
  Event forked(self.device);
  Event joined(self.device);
  forked.record(home);
  forked.precede(side);
  ST_ON(device, cuLaunchKernel, kernel, device.facts().sms, 1, 1, 256, 1, 1, 0, side.handle(),
        nullptr, nullptr);
  joined.record(side);
  joined.precede(home);
}

std::shared_ptr<Exec> capture(const FakeCudaDevice& self, const SmPartition& partition,
                              double flops, double nbytes, const py::object& effect, bool apart) {
  struct Kept {
    std::unique_ptr<Module> module;
    std::shared_ptr<Effect> effect;
  };
  auto kept = std::make_shared<Kept>();
  if (!effect.is_none()) {
    kept->effect = {new Effect{effect.inc_ref().ptr(), self.driver.fake.get()}, drop_effect};
  }
  const py::gil_scoped_release release;
  std::ostringstream image;
  image << "spacetime-fake-kernels/1\nprogram flops=" << flops << " bytes=" << nbytes << "\n";
  kept->module = std::make_unique<Module>(self.device, image.str());
  std::unique_ptr<Stream> side;  // outlives the capture
  Capture recorded(partition.capture());
  if (apart) {
    side = std::make_unique<Stream>(self.device, nullptr, 0);
    fork(self, *partition.capture(), *side, kept->module->function("program"));
  } else {
    recorded.kernel(kept->module->function("program"), self.device->facts().sms, 256);
  }
  if (kept->effect) recorded.host(run_effect, kept->effect.get());
  return std::make_shared<Exec>(self.device, recorded.end(), kept);
}

py::dict live(const FakeDriverHandle& self) {
  const st::fake::Live l = self.fake->live();
  py::dict found;
  found["primary references"] = l.primary_references;
  found["green contexts"] = l.green_contexts;
  found["streams"] = l.streams;
  found["events"] = l.events;
  found["graphs"] = l.graphs;
  found["graph execs"] = l.execs;
  found["modules"] = l.modules;
  found["allocations"] = l.allocations;
  found["host allocations"] = l.host_allocations;
  found["reservations"] = l.reservations;
  found["mappings"] = l.mappings;
  found["physical"] = l.physical;
  return found;
}

}  // namespace

void bind_fake(py::module_& m) {
  py::class_<FakeDriverHandle>(m, "FakeDriver")
      .def(py::init(&make_driver), py::arg("model") = "h200", py::kw_only(),
           py::arg("driver_version") = 0, py::arg("memory_bytes") = 0,
           py::arg("interference") = true, py::arg("whole_groups") = 0,
           py::arg("smallest_context") = 0, py::arg("remainder_merges") = true,
           py::arg("address_bytes") = 0, py::arg("libraries_fork") = false)
      .def_readonly("libraries_fork", &FakeDriverHandle::libraries_fork)
      .def_property_readonly("now_ns", [](const FakeDriverHandle& f) { return f.fake->now_ns(); })
      .def_property_readonly("busy_sm_ns",
                             [](const FakeDriverHandle& f) { return f.fake->busy_sm_ns(); })
      .def_property_readonly("live", &live)
      .def_property_readonly("calls", [](const FakeDriverHandle& f) { return f.faulty->calls(); })
      .def_property_readonly("failed", &failed)
      .def("fail", &fail, py::arg("nth"), py::arg("code"), py::kw_only(),
           py::arg("call") = py::none(), py::arg("sticky") = false)
      .def(
          "poison", [](const FakeDriverHandle& f, int code) { f.fake->poison(code); },
          py::arg("code"), Unlocked());
  py::class_<FakeCudaDevice, CudaDevice, std::shared_ptr<FakeCudaDevice>>(m, "FakeCudaDevice")
      .def(py::init(&open_fake), py::arg("driver"), py::kw_only(), py::arg("unit_sms") = 0,
           py::arg("domains") = false)
      .def_property_readonly("driver", [](const FakeCudaDevice& f) { return f.driver; })
      .def("capture", &capture, py::arg("partition"), py::kw_only(), py::arg("flops"),
           py::arg("nbytes"), py::arg("effect") = py::none(), py::arg("apart") = false);
}
