// entries.h: every driver call that the backend, or a test or probe of it, uses, once. Whatever
// exists per call (the loader's table, the fake, the fault wrapper, the names in messages) is
// generated from this list.
//
// ST_CUDA_ENTRIES(X): X(name, version, need, declaration, arguments). `version` is the CUDA version
// whose binary interface `declaration` is, as cuGetProcAddress takes it; `need` is kRequired, or
// kOptional where a driver without the call only lacks a capability. Parted by the headers that
// know them, which is all that abi_check can compare with.
#pragma once

// clang-format off
#define ST_CUDA_ENTRIES(X) ST_CUDA_ENTRIES_13_0(X) ST_CUDA_ENTRIES_13_1(X)
#define ST_CUDA_ENTRIES_13_1(X) \
  X(cuDevSmResourceSplit, 13010, kOptional, \
    (CUdevResource* groups, unsigned count, const CUdevResource* input, CUdevResource* \
     remaining, unsigned flags, CU_DEV_SM_RESOURCE_GROUP_PARAMS* parameters), \
    (groups, count, input, remaining, flags, parameters))
#define ST_CUDA_ENTRIES_13_0(X) \
  X(cuInit, 2000, kRequired, (unsigned flags), (flags)) \
  X(cuDriverGetVersion, 2020, kRequired, (int* version), (version)) \
  X(cuGetErrorName, 6000, kRequired, (CUresult code, const char** name), (code, name)) \
  X(cuGetErrorString, 6000, kRequired, (CUresult code, const char** text), (code, text)) \
  X(cuDeviceGetCount, 2000, kRequired, (int* count), (count)) \
  X(cuDeviceGet, 2000, kRequired, (CUdevice* device, int ordinal), (device, ordinal)) \
  X(cuDeviceGetName, 2000, kRequired, \
    (char* name, int length, CUdevice device), \
    (name, length, device)) \
  X(cuDeviceGetUuid, 11040, kRequired, (CUuuid* uuid, CUdevice device), (uuid, device)) \
  X(cuDeviceGetAttribute, 2000, kRequired, \
    (int* value, int attribute, CUdevice device), \
    (value, attribute, device)) \
  X(cuDeviceTotalMem, 3020, kRequired, (std::size_t* bytes, CUdevice device), (bytes, device)) \
  X(cuDevicePrimaryCtxRetain, 7000, kRequired, \
    (CUcontext* context, CUdevice device), \
    (context, device)) \
  X(cuDevicePrimaryCtxRelease, 11000, kRequired, (CUdevice device), (device)) \
  X(cuDevicePrimaryCtxReset, 11000, kRequired, (CUdevice device), (device)) \
  X(cuCtxSetCurrent, 4000, kRequired, (CUcontext context), (context)) \
  X(cuCtxGetCurrent, 4000, kRequired, (CUcontext* context), (context)) \
  X(cuCtxSynchronize, 2000, kRequired, (), ()) \
  X(cuCtxGetStreamPriorityRange, 5050, kRequired, (int* least, int* greatest), (least, greatest)) \
  X(cuMemGetInfo, 3020, kRequired, (std::size_t* free, std::size_t* total), (free, total)) \
  X(cuMemAlloc, 3020, kRequired, (CUdeviceptr* pointer, std::size_t bytes), (pointer, bytes)) \
  X(cuMemFree, 3020, kRequired, (CUdeviceptr pointer), (pointer)) \
  X(cuMemHostAlloc, 2020, kRequired, \
    (void** pointer, std::size_t bytes, unsigned flags), \
    (pointer, bytes, flags)) \
  X(cuMemFreeHost, 2000, kRequired, (void* pointer), (pointer)) \
  X(cuMemcpyAsync, 4000, kRequired, \
    (CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream), \
    (to, from, bytes, stream)) \
  X(cuMemsetD8Async, 3020, kRequired, \
    (CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream stream), \
    (to, value, bytes, stream)) \
  X(cuMemGetAllocationGranularity, 10020, kOptional, \
    (std::size_t* bytes, const CUmemAllocationProp* property, int option), \
    (bytes, property, option)) \
  X(cuMemAddressReserve, 10020, kOptional, \
    (CUdeviceptr* pointer, std::size_t bytes, std::size_t alignment, CUdeviceptr at, \
     std::uint64_t flags), \
    (pointer, bytes, alignment, at, flags)) \
  X(cuMemAddressFree, 10020, kOptional, \
    (CUdeviceptr pointer, std::size_t bytes), \
    (pointer, bytes)) \
  X(cuMemCreate, 10020, kOptional, \
    (CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* \
     property, std::uint64_t flags), \
    (handle, bytes, property, flags)) \
  X(cuMemRelease, 10020, kOptional, (CUmemGenericAllocationHandle handle), (handle)) \
  X(cuMemMap, 10020, kOptional, \
    (CUdeviceptr pointer, std::size_t bytes, std::size_t offset, \
     CUmemGenericAllocationHandle handle, std::uint64_t flags), \
    (pointer, bytes, offset, handle, flags)) \
  X(cuMemUnmap, 10020, kOptional, (CUdeviceptr pointer, std::size_t bytes), (pointer, bytes)) \
  X(cuMemSetAccess, 10020, kOptional, \
    (CUdeviceptr pointer, std::size_t bytes, const CUmemAccessDesc* access, std::size_t \
     count), \
    (pointer, bytes, access, count)) \
  X(cuStreamCreateWithPriority, 5050, kRequired, \
    (CUstream* stream, unsigned flags, int priority), \
    (stream, flags, priority)) \
  X(cuStreamDestroy, 4000, kRequired, (CUstream stream), (stream)) \
  X(cuStreamSynchronize, 2000, kRequired, (CUstream stream), (stream)) \
  X(cuStreamQuery, 2000, kRequired, (CUstream stream), (stream)) \
  X(cuStreamWaitEvent, 3020, kRequired, \
    (CUstream stream, CUevent event, unsigned flags), \
    (stream, event, flags)) \
  X(cuStreamGetPriority, 5050, kRequired, (CUstream stream, int* priority), (stream, priority)) \
  X(cuStreamBeginCapture, 10010, kRequired, (CUstream stream, int mode), (stream, mode)) \
  X(cuStreamEndCapture, 10000, kRequired, (CUstream stream, CUgraph* graph), (stream, graph)) \
  X(cuStreamIsCapturing, 10000, kRequired, (CUstream stream, int* status), (stream, status)) \
  X(cuEventCreate, 2000, kRequired, (CUevent* event, unsigned flags), (event, flags)) \
  X(cuEventDestroy, 4000, kRequired, (CUevent event), (event)) \
  X(cuEventRecord, 2000, kRequired, (CUevent event, CUstream stream), (event, stream)) \
  X(cuEventQuery, 2000, kRequired, (CUevent event), (event)) \
  X(cuEventSynchronize, 2000, kRequired, (CUevent event), (event)) \
  X(cuEventElapsedTime, 2000, kRequired, \
    (float* milliseconds, CUevent begin, CUevent end), \
    (milliseconds, begin, end)) \
  X(cuGraphDestroy, 10000, kRequired, (CUgraph graph), (graph)) \
  X(cuGraphGetNodes, 10000, kRequired, \
    (CUgraph graph, CUgraphNode* nodes, std::size_t* count), \
    (graph, nodes, count)) \
  X(cuGraphNodeGetType, 10000, kRequired, (CUgraphNode node, int* type), (node, type)) \
  X(cuGraphKernelNodeGetParams, 12000, kOptional, \
    (CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* parameters), \
    (node, parameters)) \
  X(cuGraphInstantiateWithFlags, 11040, kRequired, \
    (CUgraphExec* exec, CUgraph graph, std::uint64_t flags), \
    (exec, graph, flags)) \
  X(cuGraphExecDestroy, 10000, kRequired, (CUgraphExec exec), (exec)) \
  X(cuGraphUpload, 11010, kRequired, (CUgraphExec exec, CUstream stream), (exec, stream)) \
  X(cuGraphLaunch, 10000, kRequired, (CUgraphExec exec, CUstream stream), (exec, stream)) \
  X(cuModuleLoadData, 2000, kRequired, (CUmodule* module, const void* image), (module, image)) \
  X(cuModuleUnload, 2000, kRequired, (CUmodule module), (module)) \
  X(cuModuleGetFunction, 2000, kRequired, \
    (CUfunction* function, CUmodule module, const char* name), \
    (function, module, name)) \
  X(cuLaunchKernel, 4000, kRequired, \
    (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned \
     block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream \
     stream, void** parameters, void** extra), \
    (function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, \
     parameters, extra)) \
  X(cuLaunchHostFunc, 10000, kRequired, \
    (CUstream stream, CUhostFn function, void* data), \
    (stream, function, data)) \
  X(cuDeviceGetDevResource, 12040, kOptional, \
    (CUdevice device, CUdevResource* resource, int type), \
    (device, resource, type)) \
  X(cuDevSmResourceSplitByCount, 12040, kOptional, \
    (CUdevResource* groups, unsigned* count, const CUdevResource* input, CUdevResource* \
     remaining, unsigned flags, unsigned minimum), \
    (groups, count, input, remaining, flags, minimum)) \
  X(cuDevResourceGenerateDesc, 12040, kOptional, \
    (CUdevResourceDesc* descriptor, CUdevResource* resources, unsigned count), \
    (descriptor, resources, count)) \
  X(cuGreenCtxCreate, 12040, kOptional, \
    (CUgreenCtx* context, CUdevResourceDesc descriptor, CUdevice device, unsigned \
     flags), \
    (context, descriptor, device, flags)) \
  X(cuGreenCtxDestroy, 12040, kOptional, (CUgreenCtx context), (context)) \
  X(cuCtxFromGreenCtx, 12040, kOptional, \
    (CUcontext* context, CUgreenCtx green), \
    (context, green)) \
  X(cuGreenCtxGetDevResource, 12040, kOptional, \
    (CUgreenCtx context, CUdevResource* resource, int type), \
    (context, resource, type)) \
  X(cuGreenCtxStreamCreate, 12050, kOptional, \
    (CUstream* stream, CUgreenCtx context, unsigned flags, int priority), \
    (stream, context, flags, priority)) \
  X(cuStreamGetGreenCtx, 12040, kOptional, \
    (CUstream stream, CUgreenCtx* context), \
    (stream, context))
// clang-format on
