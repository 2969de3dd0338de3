#include "bind/dlpack.h"

namespace py = pybind11;

namespace {

// The binary interface of DLPack, unversioned form.
struct DLDevice {
  std::int32_t type;
  std::int32_t id;
};
struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};
constexpr std::int32_t kCpu = 1;
constexpr std::int32_t kCuda = 2;
constexpr const char* kUnused = "dltensor";  // renamed by whoever takes the tensor over

struct View {
  DLManagedTensor managed;
  std::shared_ptr<st::cuda::Memory> memory;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

void drop(DLManagedTensor* managed) { delete static_cast<View*>(managed->context); }

void drop_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, kUnused)) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kUnused));
  managed->deleter(managed);
}

}  // namespace

py::capsule dltensor(const std::shared_ptr<st::cuda::Memory>& memory, std::uint64_t offset,
                     std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                     std::uint8_t code, std::uint8_t bits, bool host) {
  if (shape.size() != strides.size()) throw std::invalid_argument("strides: one for each size");
  if (offset > memory->bytes()) throw std::invalid_argument("offset: beyond the memory");
  auto* view = new View{{}, memory, std::move(shape), std::move(strides)};
  DLTensor& tensor = view->managed.tensor;
  tensor.data = reinterpret_cast<void*>(memory->address() + offset);
  const bool cuda = memory->on_device() && !host;
  tensor.device = {cuda ? kCuda : kCpu, cuda ? memory->ordinal() : 0};
  tensor.ndim = static_cast<std::int32_t>(view->shape.size());
  tensor.dtype = {code, bits, 1};
  tensor.shape = view->shape.data();
  tensor.strides = view->strides.data();
  view->managed.context = view;
  view->managed.deleter = &drop;
  return py::reinterpret_steal<py::capsule>(PyCapsule_New(&view->managed, kUnused, &drop_unused));
}
