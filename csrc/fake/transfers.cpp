// transfers.cpp: memory, as the driver's calls see it.
#include "fake/state.h"

namespace st::fake {

CUresult FakeDriver::cuMemGetInfo(std::size_t* free, std::size_t* total) {
  return state_->call(Entry::cuMemGetInfo, [&]() -> CUresult {
    const AddressSpace& memory = *state_->memory;
    if (free == nullptr || total == nullptr) return kInvalidValue;
    *total = memory.total_bytes();
    *free = memory.total_bytes() - memory.used_bytes();
    return kSuccess;
  });
}

CUresult FakeDriver::cuMemAlloc(CUdeviceptr* pointer, std::size_t bytes) {
  return state_->call(Entry::cuMemAlloc, [&] { return state_->memory->allocate(pointer, bytes); });
}

// The real calls that free wait for the device; here memory outlives the work given before.
CUresult FakeDriver::cuMemFree(CUdeviceptr pointer) {
  return state_->call(Entry::cuMemFree,
                      [&] { return state_->memory->free(pointer, state_->engine.issued()); });
}

CUresult FakeDriver::cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  return state_->call(Entry::cuMemHostAlloc, [&]() -> CUresult {
    constexpr unsigned kAllFlags = 7;
    if ((flags & ~kAllFlags) != 0) return kInvalidValue;
    return state_->memory->allocate_host(pointer, bytes);
  });
}

CUresult FakeDriver::cuMemFreeHost(void* pointer) {
  return state_->call(Entry::cuMemFreeHost,
                      [&] { return state_->memory->free_host(pointer, state_->engine.issued()); });
}

CUresult FakeDriver::cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes,
                                   CUstream stream) {
  return state_->call(Entry::cuMemcpyAsync, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> given;
    if (const CUresult code = s.find(stream, given); code != 0) return code;
    if (bytes == 0) return kSuccess;
    if (to == 0 || from == 0) return kInvalidValue;
    if (!s.memory->usable(to, bytes, false) || !s.memory->usable(from, bytes, false)) {
      return kInvalidValue;
    }
    Operation operation{.type = kNodeMemcpy};
    operation.to = to;
    operation.from = from;
    operation.size = bytes;
    const auto pageable = [&](CUdeviceptr pointer) {
      return !s.memory->of_device(pointer) && !s.memory->pinned(pointer);
    };
    if (given->capture != nullptr) return s.enqueue(*given, operation);
    // As the real driver: memory that it does not know is read before the call returns, and
    // written before the call returns.
    if (pageable(from)) {
      const char* data = reinterpret_cast<const char*>(from);
      operation.staged = std::make_shared<std::vector<char>>(data, data + bytes);
    }
    const CUresult code = s.enqueue(*given, operation);
    return code == kSuccess && pageable(to) ? s.wait(given->tail) : code;
  });
}

CUresult FakeDriver::cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t bytes,
                                     CUstream stream) {
  return state_->call(Entry::cuMemsetD8Async, [&]() -> CUresult {
    std::shared_ptr<Stream> given;
    if (const CUresult code = state_->find(stream, given); code != 0) return code;
    if (bytes == 0) return kSuccess;
    const AddressSpace& memory = *state_->memory;
    if (!memory.of_device(to) && !memory.pinned(to)) return kInvalidValue;
    if (!memory.usable(to, bytes, false)) return kInvalidValue;
    Operation operation{.type = kNodeMemset};
    operation.to = to;
    operation.size = bytes;
    operation.value = value;
    return state_->enqueue(*given, operation);
  });
}

namespace {

bool on_this_device(const CUmemAllocationProp* property) {
  return property != nullptr && property->type == kMemPinned &&
         property->location.type == kLocationDevice && property->location.id == 0;
}

}  // namespace

CUresult FakeDriver::cuMemGetAllocationGranularity(std::size_t* bytes,
                                                   const CUmemAllocationProp* property,
                                                   int option) {
  return state_->call(Entry::cuMemGetAllocationGranularity, [&]() -> CUresult {
    constexpr int kRecommended = 1;
    if (bytes == nullptr || option < 0 || option > kRecommended) return kInvalidValue;
    if (!on_this_device(property)) return kInvalidValue;
    *bytes = kGranularity;
    return kSuccess;
  });
}

CUresult FakeDriver::cuMemAddressReserve(CUdeviceptr* pointer, std::size_t bytes,
                                         std::size_t alignment, CUdeviceptr, std::uint64_t flags) {
  return state_->call(Entry::cuMemAddressReserve, [&]() -> CUresult {
    if (flags != 0) return kInvalidValue;
    const std::size_t most = state_->options.address_bytes;
    if (most != 0 && bytes > most) return kOutOfMemory;
    return state_->memory->reserve(pointer, bytes, alignment);  // the wanted address is a hint
  });
}

CUresult FakeDriver::cuMemAddressFree(CUdeviceptr pointer, std::size_t bytes) {
  return state_->call(Entry::cuMemAddressFree,
                      [&] { return state_->memory->unreserve(pointer, bytes); });
}

CUresult FakeDriver::cuMemCreate(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                                 const CUmemAllocationProp* property, std::uint64_t flags) {
  return state_->call(Entry::cuMemCreate, [&]() -> CUresult {
    if (handle == nullptr || !on_this_device(property) || flags != 0) return kInvalidValue;
    const auto made = state_->handle<CUmemGenericAllocationHandle>();
    const CUresult code = state_->memory->create(made, bytes);
    if (code == kSuccess) *handle = made;
    return code;
  });
}

CUresult FakeDriver::cuMemRelease(CUmemGenericAllocationHandle handle) {
  return state_->call(Entry::cuMemRelease, [&] { return state_->memory->release(handle); });
}

CUresult FakeDriver::cuMemMap(CUdeviceptr pointer, std::size_t bytes, std::size_t offset,
                              CUmemGenericAllocationHandle handle, std::uint64_t flags) {
  return state_->call(Entry::cuMemMap, [&]() -> CUresult {
    if (offset != 0 || flags != 0) return kInvalidValue;
    return state_->memory->map(pointer, bytes, handle);
  });
}

CUresult FakeDriver::cuMemUnmap(CUdeviceptr pointer, std::size_t bytes) {
  return state_->call(Entry::cuMemUnmap, [&] {
    return state_->memory->unmap(pointer, bytes, state_->engine.issued());
  });
}

CUresult FakeDriver::cuMemSetAccess(CUdeviceptr pointer, std::size_t bytes,
                                    const CUmemAccessDesc* access, std::size_t count) {
  return state_->call(Entry::cuMemSetAccess, [&]() -> CUresult {
    if (access == nullptr || count != 1 || access->flags != kAccessReadWrite ||
        access->location.type != kLocationDevice || access->location.id != 0) {
      return kInvalidValue;
    }
    return state_->memory->allow(pointer, bytes);
  });
}

}  // namespace st::fake
