// dlpack.h: memory as DLPack capsules, from which any array library makes views without a copy.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/memory.h"

// dltensor: a view of `memory` from byte `offset`, with strides in elements, of a type in DLPack's
// terms (code 0 int, 1 unsigned, 2 float, 4 bfloat, 5 complex, 6 bool). The capsule keeps `memory`
// alive. `host`: device memory that is the host's, as a fake's is.
pybind11::capsule dltensor(const std::shared_ptr<st::cuda::Memory>& memory, std::uint64_t offset,
                           std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                           std::uint8_t code, std::uint8_t bits, bool host);
