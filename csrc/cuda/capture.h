// capture.h: graphs recorded by ourselves, and the kernels that go into them.
//
// Thread safety: a capture belongs to the thread that began it.
#pragma once

#include <memory>
#include <string>

#include "cuda/stream.h"

namespace st::cuda {

// Kernels of one image: a cubin, PTX, or what the fake takes for one.
class Module {
 public:
  Module(std::shared_ptr<const Device> device, const std::string& image);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  CUfunction function(const std::string& name) const;

 private:
  const std::shared_ptr<const Device> device_;
  CUmodule handle_ = nullptr;
};

// What a stream is told between the constructor and end() is recorded, not run. Abandoned
// captures end in the destructor.
class Capture {
 public:
  explicit Capture(std::shared_ptr<Stream> stream);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  void kernel(CUfunction function, unsigned grid, unsigned block);  // without parameters
  void host(CUhostFn function, void* data);
  std::unique_ptr<Graph> end();

 private:
  const std::shared_ptr<Stream> stream_;
  bool open_ = true;
};

}  // namespace st::cuda
