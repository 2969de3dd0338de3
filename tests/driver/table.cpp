// table.cpp: what our loader finds in a driver: table LIBRARY prints the driver's CUDA version,
// then "name version required has" of every call of the table, then what cuInit says, as an error.
#include <cstdio>

#include "cuda/driver.h"

namespace {

using namespace st::cuda;

constexpr bool kRequired = true, kOptional = false;

struct Call {
  const char* name;
  int version;
  bool required;
};

constexpr Call kCalls[] = {
#define ST_X(name, version, need, declaration, arguments) {#name, version, need},
    ST_CUDA_ENTRIES(ST_X)
#undef ST_X
};

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  try {
    const std::shared_ptr<Driver> driver = load(words[1]);
    int version = 0;
    if (driver->cuDriverGetVersion(&version) != kSuccess) return 1;
    std::printf("%d\n", version);
    for (std::size_t i = 0; i < kEntries; ++i) {
      const Call& call = kCalls[i];
      std::printf("%s %d %d %d\n", call.name, call.version, call.required,
                  driver->has(static_cast<Entry>(i)));
    }
    if (const CUresult code = driver->cuInit(0); code != kSuccess) {
      raise(*driver, Entry::cuInit, code);
    }
    std::puts("cuInit succeeded");
  } catch (const DriverError& error) {
    std::puts(error.what());
  } catch (const DriverMissing& error) {
    std::puts(error.what());
    return 1;
  }
}
