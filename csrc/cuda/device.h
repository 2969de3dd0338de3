// device.h: an opened CUDA device: its facts, its primary context, and whether it is lost.
//
// Thread safety: everything from any thread. Calls that need a current context come after
// use() on the same thread. Green contexts are never made current: only one
// thread at a time may have one, and their streams work under the primary context.
//
// Invariants:
// 1. The primary context is retained while a Device lives; every handle made on it holds the
// Device.
// 2. `lost` goes from nothing to the first sticky error, and stays: see abi.h, sticky().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cuda/driver.h"

namespace st::cuda {

struct DeviceFacts {
  std::string name;
  int driver_version = 0;  // 13000 is CUDA 13.0
  int major = 0;           // compute capability
  int minor = 0;
  unsigned sms = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t l2_bytes = 0;
  int clock_khz = 0;
  int least_priority = 0;     // of streams; numerically largest
  int greatest_priority = 0;  // numerically smallest
  bool mps = false;           // this process is a client of the MPS daemon
};

// What a mechanism needs, and why it is off; an empty reason means it is on.
struct Feature {
  std::string name;
  std::string reason;
};

class Device {
 public:
  // open: initialises the driver and retains the primary context. Throws DriverMissing,
  // DriverError, or std::invalid_argument for an ordinal that does not exist.
  static std::shared_ptr<Device> open(std::shared_ptr<Driver> driver, int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFacts& facts() const { return facts_; }
  CUdevice handle() const { return handle_; }
  int ordinal() const { return ordinal_; }
  Driver& driver() const { return *driver_; }
  std::vector<Feature> features() const;
  std::string why_not_green() const;    // empty: green contexts can be made
  std::string why_not_virtual() const;  // empty: memory can be mapped

  void use() const;  // makes the primary context current on this thread
  void unuse() const noexcept;
  std::pair<std::uint64_t, std::uint64_t> memory() const;  // free and total bytes
  void synchronize() const;  // all work of the device; finds errors of earlier launches

  // fail: throws the DriverError, after remembering it if it is sticky.
  [[noreturn]] void fail(Entry call, CUresult code) const;
  void note(Entry call, CUresult code) const;  // remembers a sticky error
  std::optional<std::pair<Entry, CUresult>> lost() const;

  // quietly: what a destructor calls. It runs wherever the last owner lets go, often on a thread
  // without a context. What the driver then refuses cannot be helped; a loss is noted.
  template <typename Destroy>
  void quietly(Entry call, Destroy destroy) const noexcept {
    note(Entry::cuCtxSetCurrent, driver_->cuCtxSetCurrent(primary_));
    note(call, destroy(*driver_));
  }

 private:
  Device(std::shared_ptr<Driver> driver, int ordinal)
      : driver_(std::move(driver)), ordinal_(ordinal) {}
  void read_facts();
  int attribute(int which) const;

  const std::shared_ptr<Driver> driver_;
  const int ordinal_;
  CUdevice handle_ = 0;
  CUcontext primary_ = nullptr;
  DeviceFacts facts_;
  mutable std::atomic<std::int32_t> lost_{0};  // packed(); 0 while all is well
};

// ST_ON(device, cuStreamQuery, stream): the call, or DriverError, noted if it is sticky.
#define ST_ON(device, call, ...)                                                                \
  do {                                                                                          \
    if (const ::st::cuda::CUresult st_code = (device).driver().call(__VA_ARGS__); st_code != 0) \
      (device).fail(::st::cuda::Entry::call, st_code);                                          \
  } while (false)

}  // namespace st::cuda
