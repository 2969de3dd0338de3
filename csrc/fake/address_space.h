// address_space.h: the fake device's memory, which is host memory that is really allocated only
// where it is touched. Addresses of the device and of the host are the same, as with unified
// addressing.
//
// Thread safety: none; the driver's mutex guards it.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "cuda/abi.h"

namespace st::fake {

using cuda::CUdeviceptr;
using cuda::CUresult;

inline constexpr std::size_t kGranularity = 2 << 20;  // of virtual memory, as on real devices

class AddressSpace {
 public:
  explicit AddressSpace(std::size_t total_bytes);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;

  // What is freed or unmapped stays in place for work up to the number `fence`.
  CUresult allocate(CUdeviceptr* pointer, std::size_t bytes);
  CUresult free(CUdeviceptr pointer, std::uint64_t fence);
  void sweep(std::uint64_t oldest_work);  // returns the pages of what was freed before it
  CUresult allocate_host(void** pointer, std::size_t bytes);
  CUresult free_host(void* pointer, std::uint64_t fence);

  CUresult reserve(CUdeviceptr* pointer, std::size_t bytes, std::size_t alignment);
  CUresult unreserve(CUdeviceptr pointer, std::size_t bytes);
  CUresult create(std::uint64_t handle, std::size_t bytes);
  CUresult release(std::uint64_t handle);
  CUresult map(CUdeviceptr pointer, std::size_t bytes, std::uint64_t handle);
  CUresult unmap(CUdeviceptr pointer, std::size_t bytes, std::uint64_t fence);
  CUresult allow(CUdeviceptr pointer, std::size_t bytes);  // read and write

  bool of_device(CUdeviceptr pointer) const;  // freed or unmapped included
  bool pinned(CUdeviceptr pointer) const;
  // usable: whether work may touch these bytes; always so where they are not the device's.
  // `late` is for work in flight, which may still touch what was freed behind it.
  bool usable(CUdeviceptr pointer, std::size_t bytes, bool late) const;

  std::size_t total_bytes() const { return total_bytes_; }
  std::size_t used_bytes() const { return used_bytes_; }
  std::size_t allocations() const { return allocations_.size(); }
  std::size_t host_allocations() const { return hosts_.size(); }
  std::size_t reservations() const { return reservations_.size(); }
  std::size_t mappings() const { return mappings_.size(); }
  std::size_t physical() const { return physical_.size(); }  // released but mapped ones included

 private:
  struct Freed {
    CUdeviceptr pointer;
    std::size_t bytes;
    std::uint64_t fence;
    bool device;
    bool swept = false;
  };
  struct Unmapped {
    CUdeviceptr pointer;
    std::size_t bytes;
    std::uint64_t fence;
  };
  struct Physical {
    std::size_t bytes;
    std::int64_t offset;  // in the file
    unsigned mappings = 0;
    bool released = false;
  };
  struct Mapping {
    std::size_t bytes;
    std::uint64_t handle;
    bool allowed = false;
  };
  using Ranges = std::map<CUdeviceptr, std::size_t>;

  bool fits(std::size_t bytes) const { return bytes <= total_bytes_ - used_bytes_; }
  void drop(std::uint64_t handle);                     // once it is neither held nor mapped
  void reuse(CUdeviceptr pointer, std::size_t bytes);  // what was unmapped there
  bool covered(CUdeviceptr pointer, std::size_t bytes, bool allowed_only) const;

  const std::size_t total_bytes_;
  std::size_t used_bytes_ = 0;
  const int file_;  // backs physical allocations: contents survive a mapping, as on the device
  std::int64_t file_end_ = 0;
  Ranges allocations_, hosts_, reservations_;
  std::map<std::uint64_t, Physical> physical_;
  std::map<CUdeviceptr, Mapping> mappings_;
  std::deque<Freed> freed_;  // fences grow
  std::size_t swept_ = 0;    // of them, the first
  std::deque<Unmapped> unmapped_;
};

}  // namespace st::fake
