// partition.h: the backend of kind `sm`: partitions are sets of SMs of one device.
//
// A unit is one group of the split, or its remainder.
//
// Thread safety: everything from any thread; calls that name a green context are serialised here,
// since the driver does not synchronise them.
#pragma once

#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
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
  // What kernels of its streams run in; null where the driver does not say.
  CUcontext context() const { return bounded() ? green_->context() : nullptr; }
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

// The driver makes no partition of these units; the message says which, why, and the fix.
struct PartitionRefused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class SmBackend final : public rt::Backend {
 public:
  // Contexts are made on first use, and one that the driver refuses costs only its partition; a
  // remainder that it does not put beside groups is no unit. Where green contexts are missing there
  // is one unit, the whole device, and lanes only have streams.
  explicit SmBackend(std::shared_ptr<const Device> device, const Division& division = {});

  std::string_view kind() const override { return "sm"; }
  std::vector<std::uint32_t> available() const override;
  // open: throws PartitionRefused, DriverError, or std::invalid_argument for units it does not
  // have.
  std::unique_ptr<rt::Partition> open(const std::vector<std::uint32_t>& units,
                                      int priority) override;
  // why_not: why the driver makes no partition of these units; empty: it does, and the context is
  // kept. Throws like open.
  std::string why_not(const std::vector<std::uint32_t>& units);
  std::map<Units, std::string> refused() const;  // what it was asked for in vain, and why

  const std::shared_ptr<const Device>& device() const { return device_; }
  const Topology& topology() const { return topology_; }
  const std::string& why_unbounded() const { return why_unbounded_; }  // empty: SMs are bounded
  std::size_t contexts() const;                                        // green contexts held now
  // Empty: each context has work queues of its own, as far as there are any (CUDA 13.1 and newer).
  std::string why_shared_queues() const;

 private:
  Units checked(const std::vector<std::uint32_t>& wanted) const;
  void settle_remainder();
  void ask_for_queues();
  std::shared_ptr<const Green> green_for(const Units& units);
  std::shared_ptr<const Green> made_or_refused(const Units& units);
  std::shared_ptr<const Green> make(const Units& units);
  CUgreenCtx create(std::vector<CUdevResource> resources) const;
  bool evict_other();
  bool evict_idle();

  const std::shared_ptr<const Device> device_;
  std::string why_unbounded_;
  Topology topology_;
  mutable std::mutex mutex_;  // guards the contexts, and the driver's calls that name one
  std::optional<CUdevResource> queues_;  // what every context asks for beside its SMs
  std::string why_shared_queues_;
  std::map<Units, std::string> refused_;
  std::set<Units> ladder_;
  std::map<Units, std::shared_ptr<const Green>> rungs_;               // of the ladder: they stay
  std::list<std::pair<Units, std::shared_ptr<const Green>>> others_;  // last used first
};

}  // namespace st::cuda
