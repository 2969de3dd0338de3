// abi.h: the part of the CUDA driver's binary interface that is used here, declared by us so that
// no toolkit is needed to build. tests/native/abi_check.cpp compares it with cuda.h where one lies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace st::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = std::uint64_t;
using CUmemGenericAllocationHandle = std::uint64_t;
using CUcontext = struct CUctx_st*;
using CUgreenCtx = struct CUgreenCtx_st*;
using CUdevResourceDesc = struct CUdevResourceDesc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;
using CUgraphNode = struct CUgraphNode_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUkernel = struct CUkern_st*;
using CUhostFn = void (*)(void* data);

struct CUuuid {
  unsigned char bytes[16];
};

// The driver owns the opaque bytes: they hold pointers of this process, so a resource may be
// copied, but neither compared nor sent anywhere.
struct CUdevSmResource {
  unsigned smCount;
  unsigned minSmPartitionSize;      // 0 on drivers before 13.0
  unsigned smCoscheduledAlignment;  // likewise
  unsigned flags;                   // likewise before 13.1; kGroupLocalityDomain and others
  unsigned localityDomainId;        // likewise; where the flag says so
};
struct CUdevWorkqueueConfigResource {  // since 13.1
  CUdevice device;
  unsigned wqConcurrencyLimit;
  int sharingScope;
};
struct CUdevResource {
  int type;
  unsigned char opaque[92];
  union {
    CUdevSmResource sm;
    CUdevWorkqueueConfigResource wqConfig;
    unsigned char oversize[48];  // since 13.1 the last eight are a pointer, null as we make them
  };
};
static_assert(sizeof(CUdevResource) == 144 && offsetof(CUdevResource, sm) == 96);

struct CU_DEV_SM_RESOURCE_GROUP_PARAMS {  // since 13.1
  unsigned smCount;
  unsigned coscheduledSmCount;
  unsigned preferredCoscheduledSmCount;
  unsigned flags;
  unsigned localityDomainId;
  unsigned reserved[11];
};
static_assert(sizeof(CU_DEV_SM_RESOURCE_GROUP_PARAMS) == 64);

struct CUmemLocation {
  int type;
  int id;
};
struct CUmemAllocationProp {
  int type;
  int requestedHandleTypes;
  CUmemLocation location;
  void* win32HandleMetaData;
  struct {
    unsigned char compressionType;
    unsigned char gpuDirectRDMACapable;
    unsigned short usage;
    unsigned char reserved[4];
  } allocFlags;
};
struct CUmemAccessDesc {
  CUmemLocation location;
  int flags;
};

struct CUDA_KERNEL_NODE_PARAMS {  // version 2
  CUfunction func;
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  void** kernelParams;
  void** extra;
  CUkernel kern;
  CUcontext ctx;
};

inline constexpr CUresult kSuccess = 0;
inline constexpr CUresult kInvalidValue = 1;
inline constexpr CUresult kOutOfMemory = 2;
inline constexpr CUresult kNotInitialized = 3;
inline constexpr CUresult kDeinitialized = 4;
inline constexpr CUresult kStubLibrary = 34;
inline constexpr CUresult kNoDevice = 100;
inline constexpr CUresult kInvalidDevice = 101;
inline constexpr CUresult kInvalidContext = 201;
inline constexpr CUresult kInvalidHandle = 400;
inline constexpr CUresult kNotFound = 500;
inline constexpr CUresult kNotReady = 600;
inline constexpr CUresult kIllegalAddress = 700;
inline constexpr CUresult kContextIsDestroyed = 709;
inline constexpr CUresult kHardwareStackError = 714;
inline constexpr CUresult kLaunchFailed = 719;
inline constexpr CUresult kNotSupported = 801;
inline constexpr CUresult kSystemNotReady = 802;
inline constexpr CUresult kSystemDriverMismatch = 803;
inline constexpr CUresult kCompatNotSupported = 804;
inline constexpr CUresult kMpsConnectionFailed = 805;
inline constexpr CUresult kMpsRpcFailure = 806;
inline constexpr CUresult kMpsServerNotReady = 807;
inline constexpr CUresult kMpsMaxClientsReached = 808;
inline constexpr CUresult kMpsMaxConnectionsReached = 809;
inline constexpr CUresult kStreamCaptureUnsupported = 900;
inline constexpr CUresult kStreamCaptureInvalidated = 901;
inline constexpr CUresult kStreamCaptureImplicit = 906;
inline constexpr CUresult kInvalidClusterSize = 912;
inline constexpr CUresult kInvalidResourceType = 914;
inline constexpr CUresult kInvalidResourceConfiguration = 915;

inline constexpr int kResourceSm = 1;                 // CU_DEV_RESOURCE_TYPE_SM
inline constexpr int kResourceWorkqueues = 1000;      // CU_DEV_RESOURCE_TYPE_WORKQUEUE_CONFIG
inline constexpr int kScopeBalanced = 1;              // CU_WORKQUEUE_SCOPE_GREEN_CTX_BALANCED
inline constexpr unsigned kGreenDefaultStream = 1;    // CU_GREEN_CTX_DEFAULT_STREAM
inline constexpr unsigned kIgnoreCoscheduling = 1;    // CU_DEV_SM_RESOURCE_SPLIT_IGNORE_...
inline constexpr unsigned kGroupBackfill = 1;         // CU_DEV_SM_RESOURCE_GROUP_BACKFILL
inline constexpr unsigned kGroupLocalityDomain = 2;   // ..._GROUP_LOCALITY_DOMAIN_ID
inline constexpr unsigned kGroupSupplementalSms = 4;  // ..._LOCALITY_DOMAIN_SUPPLEMENTAL_SMS
inline constexpr unsigned kStreamNonBlocking = 1;     // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventBlockingSync = 1;     // CU_EVENT_BLOCKING_SYNC
inline constexpr unsigned kEventDisableTiming = 2;    // CU_EVENT_DISABLE_TIMING
inline constexpr int kCaptureThreadLocal = 1;         // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
inline constexpr int kCaptureNone = 0;                // CU_STREAM_CAPTURE_STATUS_...
inline constexpr int kCaptureActive = 1;
inline constexpr int kCaptureInvalidated = 2;
inline constexpr int kNodeKernel = 0;  // CU_GRAPH_NODE_TYPE_KERNEL
inline constexpr int kNodeMemcpy = 1;
inline constexpr int kNodeMemset = 2;
inline constexpr int kNodeHost = 3;
inline constexpr std::uint64_t kInstantiateNodePriority = 8;  // ..._USE_NODE_PRIORITY
inline constexpr int kMemPinned = 1;                          // CU_MEM_ALLOCATION_TYPE_PINNED
inline constexpr int kLocationDevice = 1;                     // CU_MEM_LOCATION_TYPE_DEVICE
inline constexpr int kAccessReadWrite = 3;                    // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
inline constexpr int kGranularityMinimum = 0;                 // CU_MEM_ALLOC_GRANULARITY_MINIMUM

inline constexpr int kAttributeMultiprocessors = 16;  // CU_DEVICE_ATTRIBUTE_...
inline constexpr int kAttributeClockKHz = 13;
inline constexpr int kAttributeL2Bytes = 38;
inline constexpr int kAttributeCapabilityMajor = 75;
inline constexpr int kAttributeCapabilityMinor = 76;
inline constexpr int kAttributeVirtualMemory = 102;
inline constexpr int kAttributeMps = 133;
inline constexpr int kAttributeLocalityDomains = 149;
inline constexpr int kAttributeLocalityDomainSms = 157;

// Errors that poison the context: every later call of the process on it returns them again.
constexpr bool sticky(CUresult code) {
  switch (code) {
    case 214:  // ECC_UNCORRECTABLE
    case 220:  // NVLINK_UNCORRECTABLE
    case kIllegalAddress:
    case 702:  // LAUNCH_TIMEOUT
    case 710:  // ASSERT
    case kHardwareStackError:
    case 715:  // ILLEGAL_INSTRUCTION
    case 716:  // MISALIGNED_ADDRESS
    case 717:  // INVALID_ADDRESS_SPACE
    case 718:  // INVALID_PC
    case kLaunchFailed:
    case 721:  // TENSOR_MEMORY_LEAK
    case 810:  // MPS_CLIENT_TERMINATED
      return true;
    default:
      return false;
  }
}

}  // namespace st::cuda
