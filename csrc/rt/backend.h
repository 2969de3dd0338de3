// backend.h: what lanes need of a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace st::rt {

// A bounded part of a device. enter() and leave() come in pairs from the thread that serves the
// lane; between them everything the thread starts stays on the partition.
class Partition {
 public:
  virtual ~Partition() = default;
  virtual void enter() = 0;  // throws std::system_error where the device refuses
  virtual void leave() noexcept = 0;
  virtual std::uint32_t units() const = 0;                 // its size: cores, or SMs as granted
  virtual std::vector<std::uint32_t> granted() const = 0;  // read back at enter(); empty before
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view kind() const = 0;                 // of its partitions: cores or sm
  virtual std::vector<std::uint32_t> available() const = 0;  // ids a partition may name
  // open: throws std::invalid_argument naming the first unit that is not available. `priority` is
  // over other partitions that share units with it, larger first, where the kind has priorities.
  virtual std::unique_ptr<Partition> open(const std::vector<std::uint32_t>& units,
                                          int priority) = 0;
};

}  // namespace st::rt
