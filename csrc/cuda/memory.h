// memory.h: device memory, pinned host memory, and arenas of tenants' weights, as owners.
//
// Thread safety: Arena::map and unmap from any thread; the rest is constant.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/device.h"

namespace st::cuda {

// A range of memory somebody owns; what views of it keep alive.
class Memory {
 public:
  virtual ~Memory() = default;
  std::uint64_t address() const { return address_; }
  std::size_t bytes() const { return bytes_; }
  bool on_device() const { return on_device_; }
  int ordinal() const { return ordinal_; }

 protected:
  Memory(bool on_device, int ordinal) : on_device_(on_device), ordinal_(ordinal) {}
  std::uint64_t address_ = 0;
  std::size_t bytes_ = 0;

 private:
  const bool on_device_;
  const int ordinal_;
};

class DeviceMemory final : public Memory {
 public:
  DeviceMemory(std::shared_ptr<const Device> device, std::size_t bytes);
  ~DeviceMemory() override;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

 private:
  const std::shared_ptr<const Device> device_;
};

class PinnedMemory final : public Memory {
 public:
  PinnedMemory(std::shared_ptr<const Device> device, std::size_t bytes);
  ~PinnedMemory() override;
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  std::byte* data() const { return reinterpret_cast<std::byte*>(address_); }

 private:
  const std::shared_ptr<const Device> device_;
};

// Rows of equal size at fixed addresses, of which only some have memory behind them: the weights of
// a family's tenants. A graph may hold addresses of rows that are still to come, so that tenants
// join and leave without a new capture; a row that leaves gives its memory back.
class Arena final : public Memory {
 public:
  // Reserves addresses for `rows` rows of at least `row_bytes`; takes no memory. Where the driver
  // refuses so many, half of them, and so on down to `least`; rows() tells.
  Arena(std::shared_ptr<const Device> device, std::size_t row_bytes, std::size_t rows,
        std::size_t least);
  ~Arena() override;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::size_t row_bytes() const { return row_bytes_; }  // rounded up to the driver's granularity
  std::size_t rows() const { return rows_; }
  std::size_t mapped_bytes() const;

  // map: puts memory behind a row. DriverError(cuMemCreate, kOutOfMemory) where there is none left;
  // the arena is then as before. std::invalid_argument for a row that is mapped or does not exist.
  void map(std::size_t row);
  // unmap: takes it away; no launch that reads the row may be running. DriverError: it is still
  // mapped, unless the memory behind it could not be released.
  void unmap(std::size_t row);

 private:
  void reserve(std::size_t least);
  void release(std::size_t row, CUmemGenericAllocationHandle handle);
  CUdeviceptr at(std::size_t row) const { return address_ + row * row_bytes_; }

  const std::shared_ptr<const Device> device_;
  std::size_t row_bytes_ = 0;
  std::size_t rows_;
  mutable std::mutex mutex_;  // guards mapped_
  std::map<std::size_t, CUmemGenericAllocationHandle> mapped_;
};

}  // namespace st::cuda
