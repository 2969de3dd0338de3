// errors.cpp: names and texts of the codes that the fake returns or can be told to return.
#include <algorithm>
#include <array>

#include "fake/needs.h"

namespace st::fake {
namespace {

struct Error {
  cuda::CUresult code;
  const char* name;
  const char* text;
};

constexpr std::array kErrors = {
    Error{0, "CUDA_SUCCESS", "no error"},
    Error{1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    Error{2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    Error{3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    Error{4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    Error{34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    Error{100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    Error{101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    Error{201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    Error{208, "CUDA_ERROR_ALREADY_MAPPED", "resource already mapped"},
    Error{209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for the device"},
    Error{214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    Error{400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    Error{401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be done in the present state"},
    Error{500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    Error{600, "CUDA_ERROR_NOT_READY", "device not ready"},
    Error{700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    Error{709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    Error{710, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    Error{714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    Error{715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    Error{719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    Error{800, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    Error{801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    Error{802, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    Error{803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
          "system has unsupported display driver / cuda driver combination"},
    Error{900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
          "operation not permitted when stream is capturing"},
    Error{901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
          "operation failed due to a previous error during capture"},
    Error{902, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
          "operation would result in a merge of separate capture sequences"},
    Error{903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream"},
    Error{904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    Error{905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
          "dependency created on uncaptured work in another stream"},
    Error{906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
          "operation would make the legacy stream depend on a capturing blocking stream"},
    Error{907, "CUDA_ERROR_CAPTURED_EVENT",
          "operation not permitted on an event last recorded in a capturing stream"},
    Error{908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
          "attempt to terminate a thread-local capture sequence from another thread"},
    Error{912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "invalid cluster size"},
    Error{914, "CUDA_ERROR_INVALID_RESOURCE_TYPE", "invalid resource type"},
    Error{915, "CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION", "invalid resource configuration"},
};

const Error* find(cuda::CUresult code) {
  const auto found = std::find_if(kErrors.begin(), kErrors.end(),
                                  [code](const Error& error) { return error.code == code; });
  return found == kErrors.end() ? nullptr : &*found;
}

}  // namespace

const char* error_name(cuda::CUresult code) {
  const Error* error = find(code);
  return error == nullptr ? nullptr : error->name;
}
const char* error_text(cuda::CUresult code) {
  const Error* error = find(code);
  return error == nullptr ? nullptr : error->text;
}

}  // namespace st::fake
