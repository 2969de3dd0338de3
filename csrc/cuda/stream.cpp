#include "cuda/stream.h"

#include <algorithm>

#include "rt/clock.h"

namespace st::cuda {
Green::~Green() {
  device_->quietly(Entry::cuGreenCtxDestroy,
                   [&](Driver& driver) { return driver.cuGreenCtxDestroy(handle_); });
}

Stream::Stream(std::shared_ptr<const Device> device, std::shared_ptr<const Green> green,
               int priority)
    : device_(std::move(device)), green_(std::move(green)) {
  const DeviceFacts& facts = device_->facts();
  const int wanted = std::clamp(-priority, facts.greatest_priority, facts.least_priority);
  device_->use();
  if (green_ == nullptr) {
    ST_ON(*device_, cuStreamCreateWithPriority, &handle_, kStreamNonBlocking, wanted);
  } else {
    ST_ON(*device_, cuGreenCtxStreamCreate, &handle_, green_->handle(), kStreamNonBlocking, wanted);
  }
}

Stream::~Stream() {
  device_->quietly(Entry::cuStreamDestroy,
                   [&](Driver& driver) { return driver.cuStreamDestroy(handle_); });
}

Event::Event(std::shared_ptr<const Device> device, bool timing) : device_(std::move(device)) {
  device_->use();
  const unsigned flags = timing ? kEventBlockingSync : kEventBlockingSync | kEventDisableTiming;
  ST_ON(*device_, cuEventCreate, &handle_, flags);
}

Event::~Event() {
  device_->quietly(Entry::cuEventDestroy,
                   [&](Driver& driver) { return driver.cuEventDestroy(handle_); });
}

void Event::record(const Stream& stream) {
  ST_ON(*device_, cuEventRecord, handle_, stream.handle());
}

void Event::precede(const Stream& stream) const {
  ST_ON(*device_, cuStreamWaitEvent, stream.handle(), handle_, 0);
}

bool Event::done() const {
  const CUresult code = device_->driver().cuEventQuery(handle_);
  if (code != kSuccess && code != kNotReady) device_->fail(Entry::cuEventQuery, code);
  return code == kSuccess;
}

void Event::wait(std::int64_t spin_ns) {
  const rt::TimeNs stop = rt::after(spin_ns);
  while (spin_ns > 0 && rt::now_ns() < stop) {
    if (done()) return;
  }
  ST_ON(*device_, cuEventSynchronize, handle_);
}

double Event::milliseconds_since(const Event& begin) const {
  float milliseconds = 0;
  ST_ON(*device_, cuEventElapsedTime, &milliseconds, begin.handle_, handle_);
  return milliseconds;
}

Graph::~Graph() {
  device_->quietly(Entry::cuGraphDestroy,
                   [&](Driver& driver) { return driver.cuGraphDestroy(handle_); });
}

std::vector<CUcontext> kernel_contexts(const Device& device, CUgraph graph) {
  std::vector<CUcontext> found;
  if (!device.driver().has(Entry::cuGraphKernelNodeGetParams)) return found;
  device.use();
  std::size_t count = 0;
  ST_ON(device, cuGraphGetNodes, graph, nullptr, &count);
  std::vector<CUgraphNode> nodes(count);
  if (count > 0) ST_ON(device, cuGraphGetNodes, graph, nodes.data(), &count);
  for (CUgraphNode node : nodes) {
    int type = 0;
    ST_ON(device, cuGraphNodeGetType, node, &type);
    if (type != kNodeKernel) continue;
    CUDA_KERNEL_NODE_PARAMS parameters{};
    ST_ON(device, cuGraphKernelNodeGetParams, node, &parameters);
    found.push_back(parameters.ctx);
  }
  return found;
}

Exec::Exec(std::shared_ptr<const Device> device, std::unique_ptr<Graph> graph,
           std::shared_ptr<void> keeper)
    : device_(std::move(device)), keeper_(std::move(keeper)), graph_(std::move(graph)) {
  device_->use();
  ST_ON(*device_, cuGraphInstantiateWithFlags, &handle_, graph_->handle(),
        kInstantiateNodePriority);
}

Exec::~Exec() {
  if (graph_ == nullptr) return;
  device_->quietly(Entry::cuGraphExecDestroy,
                   [&](Driver& driver) { return driver.cuGraphExecDestroy(handle_); });
}

void Exec::upload(const Stream& stream) const {
  device_->use();
  ST_ON(*device_, cuGraphUpload, handle_, stream.handle());
}

}  // namespace st::cuda
