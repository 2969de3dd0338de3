// stream.h: streams and events as owners. Each holds what it stands on, so that whatever order
// callers drop things in, the driver sees execs, graphs, streams, green contexts, primary context.
//
// Thread safety: as the driver's: one thread at a time for each object, any thread.
#pragma once

#include <memory>

#include "cuda/device.h"

namespace st::cuda {

// A bounded set of SMs as the driver made it; null where green contexts are missing.
class Green {
 public:
  // `context`: what kernels of its streams run in; null where the driver does not say.
  Green(std::shared_ptr<const Device> device, CUgreenCtx handle, CUcontext context, unsigned sms)
      : device_(std::move(device)), handle_(handle), context_(context), sms_(sms) {}
  ~Green();
  Green(const Green&) = delete;
  Green& operator=(const Green&) = delete;

  CUgreenCtx handle() const { return handle_; }
  CUcontext context() const { return context_; }
  unsigned sms() const { return sms_; }  // as granted

 private:
  const std::shared_ptr<const Device> device_;
  const CUgreenCtx handle_;
  const CUcontext context_;
  const unsigned sms_;
};

class Stream {
 public:
  // On the SMs of `green`, or on the whole device where it is null. Larger `priority` goes first;
  // it is clamped to what the device has.
  Stream(std::shared_ptr<const Device> device, std::shared_ptr<const Green> green, int priority);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  CUstream handle() const { return handle_; }
  const Device& device() const { return *device_; }
  const std::shared_ptr<const Device>& owner() const { return device_; }
  const Green* green() const { return green_.get(); }

 private:
  const std::shared_ptr<const Device> device_;
  const std::shared_ptr<const Green> green_;
  CUstream handle_ = nullptr;
};

class Event {
 public:
  explicit Event(std::shared_ptr<const Device> device, bool timing = false);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream);
  // wait: looks for `spin_ns`, which ends soonest, then sleeps, which leaves the core to others.
  void wait(std::int64_t spin_ns);
  void precede(const Stream& stream) const;  // what the stream is given from now on comes after it
  bool done() const;
  double milliseconds_since(const Event& begin) const;  // both made with timing

 private:
  const std::shared_ptr<const Device> device_;
  CUevent handle_ = nullptr;
};

// A captured graph.
class Graph {
 public:
  Graph(std::shared_ptr<const Device> device, CUgraph handle)
      : device_(std::move(device)), handle_(handle) {}
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  CUgraph handle() const { return handle_; }

 private:
  const std::shared_ptr<const Device> device_;
  const CUgraph handle_;
};

// kernel_contexts: of every kernel of a graph, the context that it will run in, wherever the graph
// is launched. Empty where the driver does not say. Graphs within the graph are not looked into.
std::vector<CUcontext> kernel_contexts(const Device& device, CUgraph graph);

// An executable graph that runs on the SMs of the stream it was captured on.
class Exec {
 public:
  // Made here: owned, with its graph; `keeper` holds what its nodes use.
  Exec(std::shared_ptr<const Device> device, std::unique_ptr<Graph> graph,
       std::shared_ptr<void> keeper);
  // Made elsewhere (torch): `keeper` keeps it alive.
  Exec(std::shared_ptr<const Device> device, CUgraphExec handle, std::shared_ptr<void> keeper)
      : device_(std::move(device)), keeper_(std::move(keeper)), handle_(handle) {}
  ~Exec();
  Exec(const Exec&) = delete;
  Exec& operator=(const Exec&) = delete;

  CUgraphExec handle() const { return handle_; }
  const Graph* graph() const { return graph_.get(); }  // null: made elsewhere
  void upload(const Stream& stream) const;

 private:
  const std::shared_ptr<const Device> device_;
  const std::shared_ptr<void> keeper_;
  const std::unique_ptr<Graph> graph_;  // null: made elsewhere
  CUgraphExec handle_ = nullptr;
};

}  // namespace st::cuda
