// partition.h: the backend of kind `sm`: partitions are sets of SMs of one device.
//
// A unit is one group of the split, or its remainder.
//
// Thread safety: everything from any thread; calls that name a green context are serialised here,
// since the driver does not (cuda.md §1.3).
#pragma once

#include <list>
#include <map>
#include <mutex>
#include <string>

#include "cuda/stream.h"
#include "cuda/topology.h"
#include "rt/backend.h"

namespace st::cuda {

// What a lane runs on. Launches go to `stream`, one after the other; `capture` only records graphs,
// so that a graph can be captured while the lane serves; `warm` runs what precedes a capture, and
// copies. All three are on the same SMs.
class SmPartition final : public rt::Partition {
 public:
  SmPartition(std::shared_ptr<const Device> device, std::shared_ptr<const Green> green, Units units,
              unsigned sms, int priority);

  void enter() override;
  void leave() noexcept override { device_->unuse(); }
  std::uint32_t units() const override { return sms_; }
  std::vector<std::uint32_t> granted() const override { return units_; }

  bool bounded() const { return green_ != nullptr; }
  const std::shared_ptr<Stream>& stream() const { return stream_; }
  const std::shared_ptr<Stream>& capture() const { return capture_; }
  const std::shared_ptr<Stream>& warm() const { return warm_; }

 private:
  const std::shared_ptr<const Device> device_;
  const std::shared_ptr<const Green> green_;
  const Units units_;
  const unsigned sms_;  // as granted
  const std::shared_ptr<Stream> stream_;
  const std::shared_ptr<Stream> capture_;
  const std::shared_ptr<Stream> warm_;
};

class SmBackend final : public rt::Backend {
 public:
  // `with_ladder`: makes the contexts of all rungs now, so that none is made while serving. Where
  // green contexts are missing there is one unit, the whole device, and lanes only have streams.
  explicit SmBackend(std::shared_ptr<const Device> device, bool with_ladder = true);

  std::string_view kind() const override { return "sm"; }
  std::vector<std::uint32_t> available() const override;
  std::unique_ptr<rt::Partition> open(const std::vector<std::uint32_t>& units,
                                      int priority) override;

  const std::shared_ptr<const Device>& device() const { return device_; }
  const Topology& topology() const { return topology_; }
  const std::string& why_unbounded() const { return why_unbounded_; }  // empty: SMs are bounded
  std::size_t contexts() const;                                        // green contexts held now

 private:
  std::shared_ptr<const Green> green_for(const Units& units);
  std::shared_ptr<const Green> make(const Units& units);
  bool evict_idle();

  const std::shared_ptr<const Device> device_;
  std::string why_unbounded_;
  Topology topology_;
  mutable std::mutex mutex_;  // guards the contexts, and the driver's calls that name one
  std::map<Units, std::shared_ptr<const Green>> rungs_;
  std::list<std::pair<Units, std::shared_ptr<const Green>>> others_;  // last used first
};

}  // namespace st::cuda
