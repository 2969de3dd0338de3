#include "fake/address_space.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace st::fake {
namespace {

using namespace cuda;

constexpr CUresult kAlreadyMapped = 208;
constexpr std::size_t kAlignment = 512;        // of what cuMemAlloc counts
constexpr std::size_t kFreedRemembered = 256;  // so that use after free is an error, not a crash

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }
std::size_t pages(std::size_t bytes) { return round_up(bytes, 4096); }
void* address(CUdeviceptr pointer) { return reinterpret_cast<void*>(pointer); }

int open_file() {
  const int file = memfd_create("spacetime-fake", MFD_CLOEXEC);
  if (file < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
  return file;
}

// 0 when the machine refuses.
CUdeviceptr map_pages(std::size_t bytes, int protection) {
  void* found =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return found == MAP_FAILED ? 0 : reinterpret_cast<CUdeviceptr>(found);
}

// Drops the pages but keeps the addresses.
void blank(CUdeviceptr pointer, std::size_t bytes) {
  mmap(address(pointer), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
       -1, 0);
}

// The range of `ranges` that holds `pointer`, or the end.
template <typename Map>
typename Map::const_iterator holder(const Map& ranges, CUdeviceptr pointer, auto bytes_of) {
  auto found = ranges.upper_bound(pointer);
  if (found == ranges.begin()) return ranges.end();
  --found;
  return pointer - found->first < bytes_of(found->second) ? found : ranges.end();
}
constexpr auto kSelf = [](std::size_t bytes) { return bytes; };
constexpr auto kBytes = [](const auto& range) { return range.bytes; };

}  // namespace

AddressSpace::AddressSpace(std::size_t total_bytes)
    : total_bytes_(total_bytes), file_(open_file()) {}

AddressSpace::~AddressSpace() {
  for (const auto& [pointer, bytes] : reservations_) munmap(address(pointer), bytes);
  for (const auto& [pointer, bytes] : allocations_) munmap(address(pointer), pages(bytes));
  for (const auto& [pointer, bytes] : hosts_) munmap(address(pointer), bytes);
  for (const Freed& range : freed_) munmap(address(range.pointer), range.bytes);
  close(file_);
}

CUresult AddressSpace::allocate(CUdeviceptr* pointer, std::size_t bytes) {
  if (pointer == nullptr || bytes == 0) return kInvalidValue;
  if (bytes > total_bytes_) return kOutOfMemory;
  const std::size_t size = round_up(bytes, kAlignment);
  if (!fits(size)) return kOutOfMemory;
  const CUdeviceptr found = map_pages(pages(size), PROT_READ | PROT_WRITE);
  if (found == 0) return kOutOfMemory;
  allocations_[found] = size;
  used_bytes_ += size;
  *pointer = found;
  return kSuccess;
}

CUresult AddressSpace::free(CUdeviceptr pointer, std::uint64_t fence) {
  if (pointer == 0) return kSuccess;
  const auto found = allocations_.find(pointer);
  if (found == allocations_.end()) return kInvalidValue;
  freed_.push_back({pointer, pages(found->second), fence, true});
  used_bytes_ -= found->second;
  allocations_.erase(found);
  return kSuccess;
}

void AddressSpace::sweep(std::uint64_t oldest_work) {
  for (; swept_ < freed_.size() && freed_[swept_].fence < oldest_work; ++swept_) {
    blank(freed_[swept_].pointer, freed_[swept_].bytes);
    freed_[swept_].swept = true;
  }
  while (!unmapped_.empty() && unmapped_.front().fence < oldest_work) {
    blank(unmapped_.front().pointer, unmapped_.front().bytes);
    unmapped_.pop_front();
  }
  for (; swept_ > kFreedRemembered; --swept_) {
    munmap(address(freed_.front().pointer), freed_.front().bytes);
    freed_.pop_front();
  }
}

CUresult AddressSpace::allocate_host(void** pointer, std::size_t bytes) {
  if (pointer == nullptr || bytes == 0) return kInvalidValue;
  const CUdeviceptr found = map_pages(pages(bytes), PROT_READ | PROT_WRITE);
  if (found == 0) return kOutOfMemory;
  hosts_[found] = pages(bytes);
  *pointer = address(found);
  return kSuccess;
}

CUresult AddressSpace::free_host(void* pointer, std::uint64_t fence) {
  const auto found = hosts_.find(reinterpret_cast<CUdeviceptr>(pointer));
  if (found == hosts_.end()) return kInvalidValue;
  freed_.push_back({found->first, found->second, fence, false});
  hosts_.erase(found);
  return kSuccess;
}

CUresult AddressSpace::reserve(CUdeviceptr* pointer, std::size_t bytes, std::size_t alignment) {
  if (pointer == nullptr || bytes == 0 || bytes % kGranularity != 0) return kInvalidValue;
  if (alignment != 0 && (alignment & (alignment - 1)) != 0) return kInvalidValue;
  if (alignment < kGranularity) alignment = kGranularity;
  const CUdeviceptr found = map_pages(bytes + alignment, PROT_NONE);
  if (found == 0) return kOutOfMemory;
  const CUdeviceptr start = round_up(found, alignment);
  if (start != found) munmap(address(found), start - found);
  if (start != found + alignment) munmap(address(start + bytes), found + alignment - start);
  reservations_[start] = bytes;
  *pointer = start;
  return kSuccess;
}

CUresult AddressSpace::unreserve(CUdeviceptr pointer, std::size_t bytes) {
  const auto found = reservations_.find(pointer);
  if (found == reservations_.end() || found->second != bytes) return kInvalidValue;
  const auto mapped = mappings_.lower_bound(pointer);
  if (mapped != mappings_.end() && mapped->first < pointer + bytes) return kInvalidValue;
  reuse(pointer, bytes);
  munmap(address(pointer), bytes);
  reservations_.erase(found);
  return kSuccess;
}

CUresult AddressSpace::create(std::uint64_t handle, std::size_t bytes) {
  if (bytes == 0 || bytes % kGranularity != 0) return kInvalidValue;
  if (!fits(bytes)) return kOutOfMemory;
  const std::int64_t end = file_end_ + static_cast<std::int64_t>(bytes);
  if (ftruncate(file_, end) != 0) return kOutOfMemory;
  physical_[handle] = {.bytes = bytes, .offset = file_end_};
  file_end_ = end;
  used_bytes_ += bytes;
  return kSuccess;
}

CUresult AddressSpace::release(std::uint64_t handle) {
  const auto found = physical_.find(handle);
  if (found == physical_.end() || found->second.released) return kInvalidValue;
  found->second.released = true;
  drop(handle);
  return kSuccess;
}

void AddressSpace::drop(std::uint64_t handle) {
  const auto found = physical_.find(handle);
  const Physical& physical = found->second;
  if (!physical.released || physical.mappings != 0) return;
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, physical.offset,
            static_cast<off_t>(physical.bytes));
  used_bytes_ -= physical.bytes;
  physical_.erase(found);
}

CUresult AddressSpace::map(CUdeviceptr pointer, std::size_t bytes, std::uint64_t handle) {
  const auto found = physical_.find(handle);
  if (found == physical_.end() || found->second.released) return kInvalidValue;
  const auto room = holder(reservations_, pointer, kSelf);
  if (room == reservations_.end() || bytes == 0 || bytes != found->second.bytes ||
      pointer % kGranularity != 0 || pointer - room->first + bytes > room->second) {
    return kInvalidValue;
  }
  const auto after = mappings_.lower_bound(pointer);
  if (after != mappings_.end() && after->first < pointer + bytes) return kAlreadyMapped;
  if (holder(mappings_, pointer, kBytes) != mappings_.end()) return kAlreadyMapped;
  if (mmap(address(pointer), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, file_,
           found->second.offset) == MAP_FAILED) {
    return kOutOfMemory;
  }
  reuse(pointer, bytes);
  ++found->second.mappings;
  mappings_[pointer] = {.bytes = bytes, .handle = handle};
  return kSuccess;
}

CUresult AddressSpace::unmap(CUdeviceptr pointer, std::size_t bytes, std::uint64_t fence) {
  const auto first = mappings_.find(pointer);
  if (first == mappings_.end() || !covered(pointer, bytes, false)) return kInvalidValue;
  auto last = first;
  while (last != mappings_.end() && last->first < pointer + bytes) ++last;
  if (auto end = std::prev(last); end->first + end->second.bytes != pointer + bytes) {
    return kInvalidValue;
  }
  for (auto mapping = first; mapping != last; mapping = mappings_.erase(mapping)) {
    // Mapping by mapping, since what is mapped there next may replace one of them only.
    unmapped_.push_back({mapping->first, mapping->second.bytes, fence});
    --physical_.at(mapping->second.handle).mappings;
    drop(mapping->second.handle);
  }
  return kSuccess;
}

void AddressSpace::reuse(CUdeviceptr pointer, std::size_t bytes) {
  CUdeviceptr end = pointer + bytes;
  std::deque<Unmapped> kept;
  for (const Unmapped& range : unmapped_) {
    const CUdeviceptr range_end = range.pointer + range.bytes;
    if (range.pointer < pointer) {
      kept.push_back({range.pointer, std::min(range_end, pointer) - range.pointer, range.fence});
    }
    if (range_end > end) {
      const CUdeviceptr from = std::max(range.pointer, end);
      kept.push_back({from, range_end - from, range.fence});
    }
  }
  unmapped_.swap(kept);
}

CUresult AddressSpace::allow(CUdeviceptr pointer, std::size_t bytes) {
  if (bytes == 0 || !covered(pointer, bytes, false)) return kInvalidValue;
  for (auto it = mappings_.lower_bound(pointer);
       it != mappings_.end() && it->first < pointer + bytes; ++it) {
    mprotect(address(it->first), it->second.bytes, PROT_READ | PROT_WRITE);
    it->second.allowed = true;
  }
  return kSuccess;
}

bool AddressSpace::of_device(CUdeviceptr pointer) const {
  if (holder(allocations_, pointer, kSelf) != allocations_.end()) return true;
  if (holder(reservations_, pointer, kSelf) != reservations_.end()) return true;
  for (const Freed& range : freed_) {
    if (range.device && pointer - range.pointer < range.bytes) return true;
  }
  return false;
}

bool AddressSpace::pinned(CUdeviceptr pointer) const {
  return holder(hosts_, pointer, kSelf) != hosts_.end();
}

bool AddressSpace::covered(CUdeviceptr pointer, std::size_t bytes, bool allowed_only) const {
  CUdeviceptr at = pointer;
  while (at < pointer + bytes) {
    const auto found = holder(mappings_, at, kBytes);
    if (found == mappings_.end() || (allowed_only && !found->second.allowed)) return false;
    at = found->first + found->second.bytes;
  }
  return true;
}

bool AddressSpace::usable(CUdeviceptr pointer, std::size_t bytes, bool late) const {
  const auto whole = holder(allocations_, pointer, kSelf);
  if (whole != allocations_.end()) return pointer - whole->first + bytes <= whole->second;
  for (const Freed& range : freed_) {
    if (pointer - range.pointer >= range.bytes) continue;
    return late && !range.swept && pointer - range.pointer + bytes <= range.bytes;
  }
  return !of_device(pointer) || covered(pointer, bytes, true);
}

}  // namespace st::fake
