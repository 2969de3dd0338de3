// cuda_device.h: what Python holds of an opened CUDA device, real or fake.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "cuda/partition.h"

struct CudaDevice {
  std::shared_ptr<const st::cuda::Device> device;
  std::shared_ptr<st::cuda::SmBackend> backend;
};
