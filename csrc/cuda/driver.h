// driver.h: the CUDA driver as an interface, so that a fake or a wrapper can stand in its place.
//
// Thread safety: as the driver's own calls; the objects here have no state that changes.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "cuda/abi.h"
#include "cuda/entries.h"

namespace st::cuda {

enum class Entry : std::uint8_t {
#define ST_X(name, version, need, declaration, arguments) name,
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X
      kCount
};
inline constexpr std::size_t kEntries = static_cast<std::size_t>(Entry::kCount);
std::string_view name_of(Entry entry);

// One virtual for each entry. A call the driver lacks returns kNotFound; `has` tells beforehand.
class Driver {
 public:
  virtual ~Driver() = default;
  virtual bool has(Entry entry) const = 0;
#define ST_X(name, version, need, declaration, arguments) virtual CUresult name declaration = 0;
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X
};

// The library or a required call of it is missing, or it cannot be initialised here; the message
// says which, why, and the fix.
struct DriverMissing : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// load: the driver in this shared library, by dlopen and cuGetProcAddress. Throws DriverMissing.
std::shared_ptr<Driver> load(const std::string& library = "libcuda.so.1");

// initialized: whether somebody in this process called cuInit on that library. It is neither loaded
// nor initialised by asking.
bool initialized(const std::string& library = "libcuda.so.1");

// A driver call failed.
struct DriverError : std::runtime_error {
  DriverError(Entry call, CUresult code, const std::string& text)
      : std::runtime_error(text), call(call), code(code) {}
  const Entry call;
  const CUresult code;
};
[[noreturn]] void raise(Driver& driver, Entry call, CUresult code);
// initialize: cuInit. Throws DriverMissing where the driver finds no device that it can serve.
void initialize(Driver& driver);

// ST_CU(driver, cuStreamQuery, stream): the call, or DriverError.
#define ST_CU(driver, call, ...)                                                       \
  do {                                                                                 \
    if (const ::st::cuda::CUresult st_code = (driver).call(__VA_ARGS__); st_code != 0) \
      ::st::cuda::raise(driver, ::st::cuda::Entry::call, st_code);                     \
  } while (false)

// A failed call as one number that passes through a launch's code, and back. Never 0.
std::int32_t packed(Entry call, CUresult code);
Entry call_of(std::int32_t packed);
CUresult code_of(std::int32_t packed);

}  // namespace st::cuda
