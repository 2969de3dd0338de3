#include "fake/needs.h"

namespace st::fake {

using cuda::Entry;

Needs needs(Entry entry) {
  switch (entry) {
    case Entry::cuInit:
    case Entry::cuDriverGetVersion:
    case Entry::cuGetErrorName:
    case Entry::cuGetErrorString:
      return Needs::kNothing;
    case Entry::cuDeviceGetCount:
    case Entry::cuDeviceGet:
    case Entry::cuDeviceGetName:
    case Entry::cuDeviceGetUuid:
    case Entry::cuDeviceGetAttribute:
    case Entry::cuDeviceTotalMem:
    case Entry::cuDevicePrimaryCtxRetain:
    case Entry::cuDevicePrimaryCtxRelease:
    case Entry::cuDevicePrimaryCtxReset:
    case Entry::cuCtxSetCurrent:
    case Entry::cuCtxGetCurrent:
    case Entry::cuMemGetAllocationGranularity:
    case Entry::cuMemAddressReserve:
    case Entry::cuMemAddressFree:
    case Entry::cuMemCreate:
    case Entry::cuMemRelease:
    case Entry::cuMemMap:
    case Entry::cuMemUnmap:
    case Entry::cuMemSetAccess:
    case Entry::cuGraphDestroy:
    case Entry::cuGraphGetNodes:
    case Entry::cuGraphNodeGetType:
    case Entry::cuGraphKernelNodeGetParams:
    case Entry::cuDeviceGetDevResource:
    case Entry::cuDevSmResourceSplit:
    case Entry::cuDevSmResourceSplitByCount:
    case Entry::cuDevResourceGenerateDesc:
    case Entry::cuGreenCtxCreate:
    case Entry::cuGreenCtxDestroy:
    case Entry::cuCtxFromGreenCtx:
    case Entry::cuGreenCtxGetDevResource:
    case Entry::cuGreenCtxStreamCreate:
      return Needs::kInit;
    default:
      return Needs::kContext;
  }
}

bool touches_context(Entry entry) {
  if (needs(entry) == Needs::kContext) return true;
  switch (entry) {
    case Entry::cuMemAddressReserve:
    case Entry::cuMemAddressFree:
    case Entry::cuMemCreate:
    case Entry::cuMemRelease:
    case Entry::cuMemMap:
    case Entry::cuMemUnmap:
    case Entry::cuMemSetAccess:
    case Entry::cuGreenCtxCreate:
    case Entry::cuGreenCtxDestroy:
    case Entry::cuCtxFromGreenCtx:
    case Entry::cuGreenCtxGetDevResource:
    case Entry::cuGreenCtxStreamCreate:
      return true;
    default:
      return false;
  }
}

bool destroys(Entry entry) {
  switch (entry) {
    case Entry::cuDevicePrimaryCtxRelease:
    case Entry::cuMemFree:
    case Entry::cuMemFreeHost:
    case Entry::cuMemAddressFree:
    case Entry::cuMemRelease:
    case Entry::cuMemUnmap:
    case Entry::cuStreamDestroy:
    case Entry::cuEventDestroy:
    case Entry::cuGraphDestroy:
    case Entry::cuGraphExecDestroy:
    case Entry::cuModuleUnload:
    case Entry::cuGreenCtxDestroy:
      return true;
    default:
      return false;
  }
}

bool lets_hosts(Entry entry) {
  return destroys(entry) || needs(entry) == Needs::kNothing || entry == Entry::cuCtxSetCurrent ||
         entry == Entry::cuCtxGetCurrent;
}

bool unsafe_in_capture(Entry entry) {
  switch (entry) {
    case Entry::cuMemAlloc:
    case Entry::cuMemFree:
    case Entry::cuMemHostAlloc:
    case Entry::cuMemFreeHost:
    case Entry::cuMemCreate:
    case Entry::cuMemMap:
    case Entry::cuMemUnmap:
    case Entry::cuCtxSynchronize:
    case Entry::cuEventQuery:
    case Entry::cuEventSynchronize:
    case Entry::cuModuleLoadData:
    case Entry::cuModuleUnload:
      return true;
    default:
      return false;
  }
}

bool lacking(Entry entry, int driver_version) {
  switch (entry) {
#define ST_X(name, version, need, declaration, arguments) \
  case Entry::name:                                       \
    return version > driver_version;
    ST_CUDA_ENTRIES(ST_X)
#undef ST_X
    case Entry::kCount:
      break;
  }
  return true;
}

}  // namespace st::fake
