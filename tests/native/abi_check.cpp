// abi_check.cpp: our declarations of the driver's binary interface against cuda.h, where there is
// one. Everything is checked while compiling; running it only says whether that happened.
#include <cstdio>
#include <type_traits>

#include "cuda/driver.h"

#if __has_include(<cuda.h>) && __has_include(<cudaTypedefs.h>)
#include <cuda.h>
#include <cudaTypedefs.h>
#endif

#if defined(CUDA_VERSION) && CUDA_VERSION >= 13000

namespace st::cuda {
namespace {

// Alike for a caller: both pointers, or both numbers of one size. A constant pointee stays so.
template <typename Ours, typename Theirs>
constexpr bool same_value() {
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
    using A = std::remove_pointer_t<Ours>;
    using B = std::remove_pointer_t<Theirs>;
    if constexpr (std::is_function_v<A> || std::is_void_v<A> || std::is_class_v<A>) {
      return std::is_function_v<A> == std::is_function_v<B> &&
             std::is_void_v<A> == std::is_void_v<B> && std::is_class_v<A> == std::is_class_v<B> &&
             std::is_const_v<A> == std::is_const_v<B>;
    } else {
      return same_value<A, B>() && std::is_const_v<A> == std::is_const_v<B>;
    }
  } else {
    return !std::is_pointer_v<Ours> && !std::is_pointer_v<Theirs> &&
           sizeof(Ours) == sizeof(Theirs) && !std::is_class_v<Ours> &&
           std::is_floating_point_v<Ours> == std::is_floating_point_v<Theirs>;
  }
}

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
  requires(sizeof...(A) == sizeof...(B))
struct SameCall<R (*)(A...), S (*)(B...)>
    : std::bool_constant<same_value<R, S>() && (same_value<A, B>() && ...)> {};

#define ST_X(name, version, need, declaration, arguments)                          \
  static_assert(SameCall<CUresult(*) declaration, PFN_##name##_v##version>::value, \
                "the interface of " #name);
ST_CUDA_ENTRIES_13_0(ST_X)
#if CUDA_VERSION >= 13010
ST_CUDA_ENTRIES_13_1(ST_X)
#endif
#undef ST_X

#define SAME_SIZE(type, theirs) static_assert(sizeof(type) == sizeof(theirs), #type)
#define SAME_PLACE(type, theirs, member) \
  static_assert(offsetof(type, member) == offsetof(theirs, member), #type "." #member)
SAME_SIZE(CUresult, ::CUresult);
SAME_SIZE(CUdevice, ::CUdevice);
SAME_SIZE(CUdeviceptr, ::CUdeviceptr_v2);
SAME_SIZE(CUmemGenericAllocationHandle, ::CUmemGenericAllocationHandle);
SAME_SIZE(CUuuid, ::CUuuid);
// Ours is that of the newest headers, in a union that is as large as the oldest's.
static_assert(sizeof(CUdevSmResource) >= sizeof(::CUdevSmResource));
#if CUDA_VERSION >= 13010
SAME_PLACE(CUdevResource, ::CUdevResource, wqConfig);
SAME_SIZE(CUdevWorkqueueConfigResource, ::CUdevWorkqueueConfigResource);
SAME_PLACE(CUdevWorkqueueConfigResource, ::CUdevWorkqueueConfigResource, wqConcurrencyLimit);
SAME_PLACE(CUdevWorkqueueConfigResource, ::CUdevWorkqueueConfigResource, sharingScope);
SAME_SIZE(CU_DEV_SM_RESOURCE_GROUP_PARAMS, ::CU_DEV_SM_RESOURCE_GROUP_PARAMS);
SAME_PLACE(CU_DEV_SM_RESOURCE_GROUP_PARAMS, ::CU_DEV_SM_RESOURCE_GROUP_PARAMS, coscheduledSmCount);
SAME_PLACE(CU_DEV_SM_RESOURCE_GROUP_PARAMS, ::CU_DEV_SM_RESOURCE_GROUP_PARAMS, flags);
static_assert(kResourceWorkqueues == CU_DEV_RESOURCE_TYPE_WORKQUEUE_CONFIG);
static_assert(kScopeBalanced == CU_WORKQUEUE_SCOPE_GREEN_CTX_BALANCED);
static_assert(kGroupBackfill == CU_DEV_SM_RESOURCE_GROUP_BACKFILL);
#endif
#ifdef CU_DEV_SM_RESOURCE_GROUP_LOCALITY_DOMAIN_ID_ANY  // the first headers with domains
SAME_SIZE(CUdevSmResource, ::CUdevSmResource);
SAME_PLACE(CUdevSmResource, ::CUdevSmResource, flags);
SAME_PLACE(CUdevSmResource, ::CUdevSmResource, localityDomainId);
SAME_PLACE(CU_DEV_SM_RESOURCE_GROUP_PARAMS, ::CU_DEV_SM_RESOURCE_GROUP_PARAMS, localityDomainId);
static_assert(kGroupLocalityDomain == CU_DEV_SM_RESOURCE_GROUP_LOCALITY_DOMAIN_ID);
static_assert(kGroupSupplementalSms == CU_DEV_SM_RESOURCE_GROUP_LOCALITY_DOMAIN_SUPPLEMENTAL_SMS);
static_assert(kAttributeLocalityDomains == CU_DEVICE_ATTRIBUTE_LOCALITY_DOMAIN_COUNT);
static_assert(kAttributeLocalityDomainSms ==
              CU_DEVICE_ATTRIBUTE_LOCALITY_DOMAIN_MULTIPROCESSOR_COUNT);
#endif
SAME_PLACE(CUdevSmResource, ::CUdevSmResource, smCount);
SAME_PLACE(CUdevSmResource, ::CUdevSmResource, minSmPartitionSize);
SAME_PLACE(CUdevSmResource, ::CUdevSmResource, smCoscheduledAlignment);
template <typename Ours, typename Theirs>
constexpr bool same_later_members() {  // where both have them
  if constexpr (requires { &Ours::localityDomainId, &Theirs::localityDomainId; }) {
    return offsetof(Ours, flags) == offsetof(Theirs, flags) &&
           offsetof(Ours, localityDomainId) == offsetof(Theirs, localityDomainId);
  }
  return true;
}
static_assert(same_later_members<CUdevSmResource, ::CUdevSmResource>());
SAME_SIZE(CUdevResource, ::CUdevResource);
SAME_PLACE(CUdevResource, ::CUdevResource, type);
SAME_PLACE(CUdevResource, ::CUdevResource, sm);
SAME_SIZE(CUmemLocation, ::CUmemLocation);
SAME_PLACE(CUmemLocation, ::CUmemLocation, id);
SAME_SIZE(CUmemAllocationProp, ::CUmemAllocationProp);
SAME_PLACE(CUmemAllocationProp, ::CUmemAllocationProp, requestedHandleTypes);
SAME_PLACE(CUmemAllocationProp, ::CUmemAllocationProp, location);
SAME_PLACE(CUmemAllocationProp, ::CUmemAllocationProp, win32HandleMetaData);
SAME_PLACE(CUmemAllocationProp, ::CUmemAllocationProp, allocFlags);
SAME_SIZE(CUmemAccessDesc, ::CUmemAccessDesc);
SAME_PLACE(CUmemAccessDesc, ::CUmemAccessDesc, flags);
SAME_SIZE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, gridDimX);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, sharedMemBytes);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, kernelParams);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, extra);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, kern);
SAME_PLACE(CUDA_KERNEL_NODE_PARAMS, ::CUDA_KERNEL_NODE_PARAMS_v2, ctx);

#define SAME(ours, theirs) static_assert(static_cast<long long>(ours) == (theirs), #ours)
SAME(kSuccess, CUDA_SUCCESS);
SAME(kInvalidValue, CUDA_ERROR_INVALID_VALUE);
SAME(kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(kNotInitialized, CUDA_ERROR_NOT_INITIALIZED);
SAME(kDeinitialized, CUDA_ERROR_DEINITIALIZED);
SAME(kNoDevice, CUDA_ERROR_NO_DEVICE);
SAME(kStubLibrary, CUDA_ERROR_STUB_LIBRARY);
SAME(kSystemNotReady, CUDA_ERROR_SYSTEM_NOT_READY);
SAME(kSystemDriverMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
SAME(kCompatNotSupported, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE);
SAME(kMpsConnectionFailed, CUDA_ERROR_MPS_CONNECTION_FAILED);
SAME(kMpsRpcFailure, CUDA_ERROR_MPS_RPC_FAILURE);
SAME(kMpsServerNotReady, CUDA_ERROR_MPS_SERVER_NOT_READY);
SAME(kMpsMaxClientsReached, CUDA_ERROR_MPS_MAX_CLIENTS_REACHED);
SAME(kMpsMaxConnectionsReached, CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED);
SAME(kInvalidDevice, CUDA_ERROR_INVALID_DEVICE);
SAME(kInvalidContext, CUDA_ERROR_INVALID_CONTEXT);
SAME(kInvalidHandle, CUDA_ERROR_INVALID_HANDLE);
SAME(kNotFound, CUDA_ERROR_NOT_FOUND);
SAME(kNotReady, CUDA_ERROR_NOT_READY);
SAME(kIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(kContextIsDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
SAME(kHardwareStackError, CUDA_ERROR_HARDWARE_STACK_ERROR);
SAME(kLaunchFailed, CUDA_ERROR_LAUNCH_FAILED);
SAME(kNotSupported, CUDA_ERROR_NOT_SUPPORTED);
SAME(kStreamCaptureUnsupported, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
SAME(kStreamCaptureInvalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
SAME(kStreamCaptureImplicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
SAME(kInvalidClusterSize, CUDA_ERROR_INVALID_CLUSTER_SIZE);
SAME(kInvalidResourceType, CUDA_ERROR_INVALID_RESOURCE_TYPE);
SAME(kInvalidResourceConfiguration, CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION);
SAME(kResourceSm, CU_DEV_RESOURCE_TYPE_SM);
SAME(kGreenDefaultStream, CU_GREEN_CTX_DEFAULT_STREAM);
SAME(kIgnoreCoscheduling, CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING);
SAME(kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
SAME(kEventBlockingSync, CU_EVENT_BLOCKING_SYNC);
SAME(kEventDisableTiming, CU_EVENT_DISABLE_TIMING);
SAME(kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME(kCaptureNone, CU_STREAM_CAPTURE_STATUS_NONE);
SAME(kCaptureActive, CU_STREAM_CAPTURE_STATUS_ACTIVE);
SAME(kCaptureInvalidated, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
SAME(kNodeKernel, CU_GRAPH_NODE_TYPE_KERNEL);
SAME(kNodeMemcpy, CU_GRAPH_NODE_TYPE_MEMCPY);
SAME(kNodeMemset, CU_GRAPH_NODE_TYPE_MEMSET);
SAME(kNodeHost, CU_GRAPH_NODE_TYPE_HOST);
SAME(kInstantiateNodePriority, CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY);
SAME(kMemPinned, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME(kLocationDevice, CU_MEM_LOCATION_TYPE_DEVICE);
SAME(kAccessReadWrite, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME(kGranularityMinimum, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
SAME(kAttributeMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(kAttributeClockKHz, CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
SAME(kAttributeL2Bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME(kAttributeCapabilityMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(kAttributeCapabilityMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(kAttributeVirtualMemory, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
SAME(kAttributeMps, CU_DEVICE_ATTRIBUTE_MPS_ENABLED);
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_ECC_UNCORRECTABLE)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_NVLINK_UNCORRECTABLE)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_LAUNCH_TIMEOUT)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_ASSERT)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_ILLEGAL_INSTRUCTION)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_MISALIGNED_ADDRESS)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_INVALID_ADDRESS_SPACE)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_INVALID_PC)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_TENSOR_MEMORY_LEAK)));
static_assert(sticky(static_cast<CUresult>(CUDA_ERROR_MPS_CLIENT_TERMINATED)));
static_assert(!sticky(kOutOfMemory) && !sticky(kNotReady));

}  // namespace
}  // namespace st::cuda

int main() { std::printf("abi_check: ok, against cuda.h %d\n", CUDA_VERSION); }

#else

int main() { std::puts("abi_check: skipped: no cuda.h of CUDA 13.0 or later"); }

#endif
