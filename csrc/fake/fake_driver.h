// fake_driver.h: a CUDA driver of one simulated device, in this process and in virtual time.
//
// It answers as the real driver does, with its codes. Nothing sleeps: a call advances the host's
// clock a little, and a call that waits moves it to the end of what it waits for. Copies, memsets
// and host functions really happen, when their virtual time has come; kernels only take time.
//
// Modelled: lives of handles, the primary context's count, current contexts, rounding of splits by
// architecture, what may be merged and split again, green contexts and their streams, order of
// streams, events and the null stream, captures and what spoils them, graphs that run once at a
// time with their kernels where they were captured, clusters, virtual memory, what memory is free,
// lost contexts; of CUDA 13.1 and newer splits by parameters, locality domains and what of work
// queues is checked. SMs, and the memory's bandwidth if asked for, are shared by the kernels that
// meet.
// Not modelled: priorities (kept, without effect), hardware queues, copy engines and the L2 cache
// as things to share, occupancy (a kernel fills the SMs it may use), child graphs, per-thread
// default streams, more than one device, MPS.
//
// Thread safety: any thread may call. Host functions run inside calls that wait or query
// (cuStreamSynchronize, cuStreamQuery, cuEventSynchronize, cuEventQuery, cuCtxSynchronize, and
// cuMemcpyAsync to pageable memory), on that thread, without a lock of the driver, one at a time.
// While one runs, other calls go on, queries answer "not ready", virtual time stands still, and
// calls that wait block. A host function must not call the driver: it gets
// CUDA_ERROR_NOT_PERMITTED, as documented of the real one; only what destroys is let pass.
#pragma once

#include <memory>
#include <vector>

#include "cuda/driver.h"
#include "fake/data_sheets.h"

namespace st::fake {

struct FakeOptions {
  std::string device = "h200";
  // 0: as the device needs. < 12040: no green contexts; < 12050: none with streams; >= 13010:
  // splits by parameters, work queues and locality domains.
  int driver_version = 0;
  std::size_t memory_bytes = 0;   // 0: as the device has
  unsigned whole_groups = 0;      // 0: as the device has; dies differ in which units are fused off
  unsigned smallest_context = 0;  // green contexts with fewer SMs are refused
  bool remainder_merges = true;   // whether a remainder goes with groups of its split
  std::size_t address_bytes = 0;  // that can be reserved at once; 0: what the machine gives
  bool interference = true;       // partitions share the bandwidth of the device's memory
  TimeNs call_ns = 100;           // host time of a call
  TimeNs poll_ns = 1000;          // host time of a query that finds the work unfinished
  TimeNs launch_ns = 2000;        // from the start of a kernel to its first instruction
  TimeNs node_ns = 1000;          // the same inside a graph, for every kind of node
  TimeNs copy_ns = 1500;          // before the first byte of a copy or a memset
};

using namespace cuda;  // the types that the entries name

struct State;

// Objects that exist.
struct Live {
  unsigned primary_references = 0, green_contexts = 0;
  std::size_t streams = 0, events = 0, graphs = 0, execs = 0, modules = 0;
  std::size_t allocations = 0, host_allocations = 0;
  std::size_t reservations = 0, mappings = 0, physical = 0;
  bool operator==(const Live&) const = default;
};
struct Called {
  Entry entry;
  CUresult code;
  TimeNs at_ns;
};

class FakeDriver final : public Driver {
 public:
  explicit FakeDriver(FakeOptions options = {});  // std::invalid_argument: there is no such device
  ~FakeDriver() override;

  bool has(Entry entry) const override;
#define ST_X(name, version, need, declaration, arguments) CUresult name declaration override;
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X

  // What a test asks; none of it costs virtual time.
  const DataSheet& sheet() const;
  TimeNs now_ns() const;      // the host's clock
  TimeNs busy_sm_ns() const;  // SMs x time that a kernel was on them, as far as it was simulated
  Live live() const;
  std::vector<Called> log() const;  // the latest calls, oldest first: up to kLogged
  SmSet sms_of(CUstream stream) const;
  SmSet sms_of(CUgraphNode node) const;  // none: not a kernel

  // poison: the next work that ends fails with this code, which is sticky until the primary
  // context is reset or no longer retained.
  void poison(CUresult code);
  // finish: simulates all work that was given, and runs its host functions here.
  void finish();

  static constexpr std::size_t kLogged = 4096;

 private:
  const std::unique_ptr<State> state_;
};

}  // namespace st::fake
