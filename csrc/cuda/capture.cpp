#include "cuda/capture.h"

namespace st::cuda {

Module::Module(std::shared_ptr<const Device> device, const std::string& image)
    : device_(std::move(device)) {
  device_->use();
  ST_ON(*device_, cuModuleLoadData, &handle_, image.c_str());
}

Module::~Module() {
  device_->quietly(Entry::cuModuleUnload,
                   [&](Driver& driver) { return driver.cuModuleUnload(handle_); });
}

CUfunction Module::function(const std::string& name) const {
  CUfunction found = nullptr;
  ST_ON(*device_, cuModuleGetFunction, &found, handle_, name.c_str());
  return found;
}

Capture::Capture(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {
  stream_->device().use();
  ST_ON(stream_->device(), cuStreamBeginCapture, stream_->handle(), kCaptureThreadLocal);
}

Capture::~Capture() {
  if (!open_) return;
  stream_->device().quietly(Entry::cuStreamEndCapture, [&](Driver& driver) {
    CUgraph graph = nullptr;
    const CUresult code = driver.cuStreamEndCapture(stream_->handle(), &graph);
    return graph == nullptr ? code : driver.cuGraphDestroy(graph);
  });
}

void Capture::kernel(CUfunction function, unsigned grid, unsigned block) {
  ST_ON(stream_->device(), cuLaunchKernel, function, grid, 1, 1, block, 1, 1, 0, stream_->handle(),
        nullptr, nullptr);
}

void Capture::host(CUhostFn function, void* data) {
  ST_ON(stream_->device(), cuLaunchHostFunc, stream_->handle(), function, data);
}

std::unique_ptr<Graph> Capture::end() {
  CUgraph graph = nullptr;
  open_ = false;
  ST_ON(stream_->device(), cuStreamEndCapture, stream_->handle(), &graph);
  return std::make_unique<Graph>(stream_->owner(), graph);
}

}  // namespace st::cuda
