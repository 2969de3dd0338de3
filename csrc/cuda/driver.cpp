#include "cuda/driver.h"

#include <dlfcn.h>

#include <array>

namespace st::cuda {
namespace {

enum Need : bool { kRequired, kOptional };

constexpr std::array<const char*, kEntries> kNames = {
#define ST_X(name, version, need, declaration, arguments) #name,
    ST_CUDA_ENTRIES(ST_X)
#undef ST_X
};

// cuGetProcAddress since CUDA 12.0; it is itself found by name.
using GetProcAddress = CUresult (*)(const char* name, void** found, int version,
                                    std::uint64_t flags, int* status);

class Loaded final : public Driver {
 public:
  explicit Loaded(const std::string& library) : library_(dlopen(library.c_str(), RTLD_NOW)) {
    if (library_ == nullptr) {
      throw DriverMissing(std::string(dlerror()) +  // it begins with the library's name
                          "; install the NVIDIA driver, or use device 'cpu'");
    }
    const auto find = reinterpret_cast<GetProcAddress>(dlsym(library_, "cuGetProcAddress_v2"));
    if (find == nullptr) {
      throw DriverMissing(library + ": the driver is older than CUDA 12.0; update the driver");
    }
#define ST_X(name, version, need, declaration, arguments) \
  name##_ = reinterpret_cast<decltype(name##_)>(resolve(library, find, Entry::name, version, need));
    ST_CUDA_ENTRIES(ST_X)
#undef ST_X
  }
  // The library stays loaded: other libraries of the process may hold pointers into it.

  bool has(Entry entry) const override { return has_[static_cast<std::size_t>(entry)]; }

#define ST_X(name, version, need, declaration, arguments) \
  CUresult name declaration override { return name##_ == nullptr ? kNotFound : name##_ arguments; }
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X

 private:
  void* resolve(const std::string& library, GetProcAddress find, Entry entry, int version,
                Need need) {
    void* found = nullptr;
    const std::string name(name_of(entry));
    int status = 0;
    const CUresult code = find(name.c_str(), &found, version, 0, &status);
    if ((code != kSuccess || found == nullptr) && need == kRequired) {
      throw DriverMissing(library + ": it has no " + name + " of CUDA " +
                          std::to_string(version / 1000) + "." +
                          std::to_string(version % 1000 / 10) + "; update the driver");
    }
    if (code != kSuccess) found = nullptr;
    has_[static_cast<std::size_t>(entry)] = found != nullptr;
    return found;
  }

  void* const library_;
  std::array<bool, kEntries> has_{};
#define ST_X(name, version, need, declaration, arguments) CUresult(*name##_) declaration = nullptr;
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X
};

std::string text_of(Driver& driver, Entry call, CUresult code) {
  const char* name = nullptr;
  const char* text = nullptr;
  std::string message = std::string(name_of(call)) + " failed with " + std::to_string(code);
  if (driver.cuGetErrorName(code, &name) == kSuccess && name != nullptr) {
    message += std::string(" (") + name;
    if (driver.cuGetErrorString(code, &text) == kSuccess && text != nullptr) {
      message += std::string(": ") + text;
    }
    message += ")";
  }
  return message;
}

// What helps against a cuInit that failed.
std::string_view fix_of(CUresult code) {
  switch (code) {
    case kNotInitialized:
      return "start this process with spawn: it was forked after CUDA had been initialised";
    case kStubLibrary:
      return "take the toolkit's stubs off LD_LIBRARY_PATH";
    case kNoDevice:
      return "let this process see a device (CUDA_VISIBLE_DEVICES, what its container was given)";
    case kSystemNotReady:
      return "start nvidia-fabricmanager and wait until the system is ready";
    case kSystemDriverMismatch:
      return "bring library and kernel module to one version: restart the machine, or mount the "
             "host's library";
    case kCompatNotSupported:
      return "take the compatibility library off LD_LIBRARY_PATH";
    case kMpsConnectionFailed:
    case kMpsRpcFailure:
    case kMpsServerNotReady:
    case kMpsMaxClientsReached:
    case kMpsMaxConnectionsReached:
      return "see the logs of the MPS control daemon, or unset CUDA_MPS_PIPE_DIRECTORY";
    default:
      return "see what nvidia-smi says";
  }
}

}  // namespace

std::string_view name_of(Entry entry) { return kNames.at(static_cast<std::size_t>(entry)); }

std::shared_ptr<Driver> load(const std::string& library) {
  return std::make_shared<Loaded>(library);
}

bool initialized(const std::string& library) {
  void* loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (loaded == nullptr) return false;
  const auto count = reinterpret_cast<CUresult (*)(int*)>(dlsym(loaded, "cuDeviceGetCount"));
  int devices = 0;
  const bool answered = count != nullptr && count(&devices) == kSuccess;
  dlclose(loaded);  // whoever loaded it keeps it
  return answered;
}

void initialize(Driver& driver) {
  const CUresult code = driver.cuInit(0);
  if (code == kSuccess) return;
  throw DriverMissing(text_of(driver, Entry::cuInit, code) + "; " + std::string(fix_of(code)) +
                      ", or use device 'cpu'");
}

void raise(Driver& driver, Entry call, CUresult code) {
  throw DriverError(call, code, text_of(driver, call, code));
}

std::int32_t packed(Entry call, CUresult code) {
  return (static_cast<std::int32_t>(call) + 1) << 16 | (code & 0xffff);
}
Entry call_of(std::int32_t packed) { return static_cast<Entry>((packed >> 16) - 1); }
CUresult code_of(std::int32_t packed) { return packed & 0xffff; }

}  // namespace st::cuda
