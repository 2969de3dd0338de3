// fake_graphs.cpp: what a capture accepts, and how graphs run.
#include <thread>

#include "fake_rig.h"

namespace {

using namespace st::fake;

constexpr int kGlobal = 0, kRelaxed = 2;

void count(void* data) { ++*static_cast<int*>(data); }

int status(Rig& rig, CUstream stream) {
  int found = -1;
  OK(rig.driver.cuStreamIsCapturing(stream, &found));
  return found;
}

CUgraph end(Rig& rig, CUstream stream) {
  CUgraph graph = nullptr;
  OK(rig.driver.cuStreamEndCapture(stream, &graph));
  return graph;
}

CUgraphExec instantiate(Rig& rig, CUgraph graph) {
  CUgraphExec exec = nullptr;
  OK(rig.driver.cuGraphInstantiateWithFlags(&exec, graph, kInstantiateNodePriority));
  return exec;
}

std::vector<CUgraphNode> nodes(Rig& rig, CUgraph graph) {
  std::size_t count = 0;
  OK(rig.driver.cuGraphGetNodes(graph, nullptr, &count));
  std::vector<CUgraphNode> found(count);
  OK(rig.driver.cuGraphGetNodes(graph, found.data(), &count));
  return found;
}

void begin(Rig& rig, CUstream stream, int mode = kCaptureThreadLocal) {
  OK(rig.driver.cuStreamBeginCapture(stream, mode));
}

void a_capture_becomes_a_graph() {
  Rig rig(exact());
  const CUstream stream = rig.stream_on(rig.green({rig.split(8)[3]}));
  const CUstream other = rig.stream();
  const CUdeviceptr memory = rig.memory(64);
  void* host = nullptr;
  int ran = 0;
  OK(rig.driver.cuMemHostAlloc(&host, 64, 0));
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  begin(rig, stream);
  assert(status(rig, stream) == kCaptureActive && status(rig, other) == kCaptureNone);
  OK(rig.driver.cuMemsetD8Async(memory, 6, 64, stream));
  OK(rig.launch(kernel, stream));
  OK(rig.driver.cuMemcpyAsync(at(host), memory, 64, stream));
  OK(rig.driver.cuLaunchHostFunc(stream, count, &ran));
  const CUgraph graph = end(rig, stream);
  assert(status(rig, stream) == kCaptureNone);
  const std::vector<CUgraphNode> found = nodes(rig, graph);
  const int types[] = {kNodeMemset, kNodeKernel, kNodeMemcpy, kNodeHost};
  assert(found.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    int type = -1;
    OK(rig.driver.cuGraphNodeGetType(found[i], &type));
    assert(type == types[i]);
  }
  // A kernel runs where it was captured, wherever the graph is launched.
  CUDA_KERNEL_NODE_PARAMS parameters;
  CUgreenCtx green = nullptr;
  CUcontext context = nullptr;
  OK(rig.driver.cuGraphKernelNodeGetParams(found[1], &parameters));
  OK(rig.driver.cuStreamGetGreenCtx(stream, &green));
  OK(rig.driver.cuCtxFromGreenCtx(&context, green));
  assert(parameters.ctx == context && parameters.func == kernel && parameters.gridDimX == 1);
  EXPECT(kInvalidValue, rig.driver.cuGraphKernelNodeGetParams(found[0], &parameters));
  assert(rig.driver.sms_of(found[1]) == rig.driver.sms_of(stream));

  const CUgraphExec exec = instantiate(rig, graph);
  OK(rig.driver.cuGraphUpload(exec, other));
  OK(rig.driver.cuGraphDestroy(graph));
  EXPECT(kInvalidHandle, rig.driver.cuGraphNodeGetType(found[0], &ran));
  assert(ran == 0 && static_cast<char*>(host)[0] == 0);
  const TimeNs start = rig.driver.now_ns();
  OK(rig.driver.cuGraphLaunch(exec, other));
  OK(rig.driver.cuStreamSynchronize(other));
  assert(ran == 1 && static_cast<char*>(host)[63] == 6);
  assert(rig.driver.now_ns() - start == 1001);  // 8 SMs; a ns for the copy over the link
  OK(rig.driver.cuGraphLaunch(exec, other));
  OK(rig.driver.cuGraphExecDestroy(exec));  // what was launched goes on
  EXPECT(kInvalidHandle, rig.driver.cuGraphLaunch(exec, other));
  OK(rig.driver.cuStreamSynchronize(other));
  assert(ran == 2);
}

void branches_join_a_capture() {
  Rig rig(exact());
  const std::vector<CUdevResource> groups = rig.split(8);
  const CUstream one = rig.stream_on(rig.green({groups[0]}));
  const CUstream two = rig.stream_on(rig.green({groups[1]}));
  const CUevent fork = rig.event(), join = rig.event();
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  begin(rig, one);
  OK(rig.launch(kernel, one));
  OK(rig.driver.cuEventRecord(fork, one));
  OK(rig.driver.cuStreamWaitEvent(two, fork, 0));
  assert(status(rig, two) == kCaptureActive);
  OK(rig.launch(kernel, one));
  OK(rig.launch(kernel, two));
  OK(rig.driver.cuEventRecord(join, two));
  OK(rig.driver.cuStreamWaitEvent(one, join, 0));
  OK(rig.launch(kernel, one));
  const CUgraphExec exec = instantiate(rig, end(rig, one));
  assert(status(rig, two) == kCaptureNone);
  EXPECT(907, rig.driver.cuEventQuery(join));
  OK(rig.driver.cuGraphLaunch(exec, one));
  OK(rig.driver.cuStreamSynchronize(one));
  assert(rig.driver.now_ns() == 3000);  // the two in the middle ran side by side
}

void unjoined_work_spoils_a_capture() {
  Rig rig;
  const CUstream one = rig.stream(), two = rig.stream();
  const CUevent fork = rig.event();
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  CUgraph graph = nullptr;
  begin(rig, one);
  OK(rig.driver.cuEventRecord(fork, one));
  OK(rig.driver.cuStreamWaitEvent(two, fork, 0));
  OK(rig.launch(kernel, two));
  EXPECT(904, rig.driver.cuStreamEndCapture(one, &graph));
  assert(graph == nullptr && status(rig, one) == kCaptureNone && status(rig, two) == kCaptureNone);
  OK(rig.launch(kernel, two));
  // Not the stream that began it.
  begin(rig, one);
  OK(rig.driver.cuEventRecord(fork, one));
  OK(rig.driver.cuStreamWaitEvent(two, fork, 0));
  EXPECT(903, rig.driver.cuStreamEndCapture(two, &graph));
  EXPECT(kStreamCaptureInvalidated, rig.driver.cuStreamEndCapture(one, &graph));
  EXPECT(401, rig.driver.cuStreamEndCapture(one, &graph));
}

void captures_do_not_mix() {
  Rig rig;
  const CUstream one = rig.stream(), two = rig.stream();
  const CUevent outside = rig.event(), inside = rig.event(), never = rig.event();
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  CUgraph graph = nullptr;
  OK(rig.driver.cuEventRecord(outside, two));
  begin(rig, one);
  OK(rig.driver.cuStreamWaitEvent(one, never, 0));
  EXPECT(905, rig.driver.cuStreamWaitEvent(one, outside, 0));
  assert(status(rig, one) == kCaptureInvalidated);
  EXPECT(kStreamCaptureInvalidated, rig.launch(kernel, one));
  EXPECT(kStreamCaptureInvalidated, rig.driver.cuStreamEndCapture(one, &graph));
  begin(rig, one);
  begin(rig, two);
  OK(rig.driver.cuEventRecord(inside, one));
  EXPECT(902, rig.driver.cuStreamWaitEvent(two, inside, 0));
  EXPECT(kStreamCaptureInvalidated, rig.driver.cuStreamEndCapture(one, &graph));
  EXPECT(kStreamCaptureInvalidated, rig.driver.cuStreamEndCapture(two, &graph));
}

void calls_that_spoil_a_capture() {
  Rig rig;
  const CUstream stream = rig.stream(), bystander = rig.stream();
  const CUevent event = rig.event();
  FakeDriver& driver = rig.driver;
  CUdeviceptr memory = 0;
  CUgraph graph = nullptr;
  const auto spoils = [&](auto call, int mode = kCaptureThreadLocal) {
    begin(rig, stream, mode);
    EXPECT(kStreamCaptureUnsupported, call());
    EXPECT(kStreamCaptureInvalidated, driver.cuStreamEndCapture(stream, &graph));
  };
  spoils([&] { return driver.cuMemAlloc(&memory, 64); });
  spoils([&] { return driver.cuStreamQuery(stream); });
  spoils([&] { return driver.cuStreamSynchronize(stream); });
  spoils([&] { return driver.cuEventQuery(event); });
  spoils([&] { return driver.cuCtxSynchronize(); });
  const auto elsewhere = [&] {
    CUresult code = -1;
    std::thread([&] {
      OK(driver.cuCtxSetCurrent(rig.context));
      code = driver.cuMemAlloc(&memory, 64);
    }).join();
    return code;
  };
  spoils(elsewhere, kGlobal);
  begin(rig, stream);
  OK(elsewhere());
  OK(driver.cuStreamQuery(bystander));
  std::thread([&] {
    OK(driver.cuCtxSetCurrent(rig.context));
    EXPECT(908, driver.cuStreamEndCapture(stream, &graph));
  }).join();
  OK(driver.cuStreamEndCapture(stream, &graph));
  begin(rig, stream, kRelaxed);
  OK(driver.cuMemAlloc(&memory, 64));
  std::thread([&] {
    OK(driver.cuCtxSetCurrent(rig.context));
    OK(driver.cuStreamEndCapture(stream, &graph));
  }).join();
  EXPECT(kStreamCaptureUnsupported, driver.cuStreamBeginCapture(nullptr, kCaptureThreadLocal));
  EXPECT(kInvalidValue, driver.cuStreamBeginCapture(stream, 3));
}

void the_null_stream_spoils_blocking_captures_only() {
  Rig rig;
  const CUstream blocking = rig.stream(0), free = rig.stream();
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  CUgraph graph = nullptr;
  begin(rig, free);
  OK(rig.launch(kernel, nullptr));
  OK(rig.driver.cuStreamEndCapture(free, &graph));
  begin(rig, blocking);
  EXPECT(kStreamCaptureImplicit, rig.launch(kernel, nullptr));
  EXPECT(kStreamCaptureInvalidated, rig.driver.cuStreamEndCapture(blocking, &graph));
}

void destroying_a_stream_ends_its_capture() {
  Rig rig;
  const CUstream one = rig.stream(), two = rig.stream();
  const CUevent fork = rig.event();
  CUgraph graph = nullptr;
  begin(rig, one);
  OK(rig.driver.cuEventRecord(fork, one));
  OK(rig.driver.cuStreamWaitEvent(two, fork, 0));
  OK(rig.driver.cuStreamDestroy(one));
  assert(status(rig, two) == kCaptureNone);
  EXPECT(907, rig.driver.cuStreamWaitEvent(two, fork, 0));
  begin(rig, two);
  OK(rig.driver.cuStreamEndCapture(two, &graph));
  OK(rig.driver.cuDevicePrimaryCtxReset(0));
}

void an_exec_runs_once_at_a_time() {
  Rig rig(exact());
  const CUstream one = rig.stream(), two = rig.stream(), three = rig.stream();
  const std::vector<CUdevResource> groups = rig.split(8);
  const CUstream lane = rig.stream_on(rig.green({groups[0]}));
  const CUstream beside = rig.stream_on(rig.green({groups[1]}));
  const CUfunction kernel = rig.kernel(computing(1000, 8));
  begin(rig, lane);
  OK(rig.launch(kernel, lane));
  const CUgraphExec first = instantiate(rig, end(rig, lane));
  begin(rig, beside);
  OK(rig.launch(kernel, beside));
  const CUgraphExec second = instantiate(rig, end(rig, beside));
  const CUevent begins = rig.event(), ends[] = {rig.event(), rig.event(), rig.event()};
  OK(rig.driver.cuEventRecord(begins, one));
  OK(rig.driver.cuGraphLaunch(first, one));
  OK(rig.driver.cuEventRecord(ends[0], one));
  OK(rig.driver.cuGraphLaunch(first, two));
  OK(rig.driver.cuEventRecord(ends[1], two));
  OK(rig.driver.cuGraphLaunch(second, three));
  OK(rig.driver.cuEventRecord(ends[2], three));
  OK(rig.driver.cuCtxSynchronize());
  const float took_ms[] = {1e-3f, 2e-3f, 1e-3f};
  for (int i = 0; i < 3; ++i) {
    float ms = 0;
    OK(rig.driver.cuEventElapsedTime(&ms, begins, ends[i]));
    assert(ms == took_ms[i]);
  }
}

void kernels_and_clusters() {
  Rig rig;
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  EXPECT(209, rig.driver.cuModuleLoadData(&module, "\177ELF"));
  EXPECT(209, rig.driver.cuModuleLoadData(&module, "spacetime-fake-kernels/1\nk flops"));
  EXPECT(209, rig.driver.cuModuleLoadData(&module, "spacetime-fake-kernels/1\nk speed=1"));
  OK(rig.driver.cuModuleLoadData(&module,
                                 "spacetime-fake-kernels/1\na flops=1 bytes=1\n\n"
                                 "b flops=1 bytes=1 cluster=8 l2=3\n"));
  EXPECT(kNotFound, rig.driver.cuModuleGetFunction(&function, module, "c"));
  OK(rig.driver.cuModuleGetFunction(&function, module, "b"));
  OK(rig.launch(function, rig.stream_on(rig.green({rig.split(8)[0]}))));
  OK(rig.launch(function, nullptr));
  const std::vector<CUdevResource> pairs = rig.split(2, kIgnoreCoscheduling);
  EXPECT(kInvalidClusterSize, rig.launch(function, rig.stream_on(rig.green({pairs[0]}))));
  // What a split leaves over guarantees nothing.
  const CUstream rest = rig.stream_on(rig.green({rig.split(8).back()}));
  EXPECT(kInvalidClusterSize, rig.launch(function, rest));
  const CUfunction large = rig.kernel("flops=1 bytes=1 cluster=16");
  EXPECT(kInvalidClusterSize, rig.launch(large, rig.stream_on(rig.green({rig.split(8)[0]}))));
  OK(rig.launch(large, rig.stream_on(rig.green({rig.split(16)[0]}))));
  EXPECT(kInvalidValue,
         rig.driver.cuLaunchKernel(function, 1, 1, 1, 1025, 1, 1, 0, nullptr, nullptr, nullptr));
  OK(rig.driver.cuModuleUnload(module));
  EXPECT(kInvalidHandle, rig.launch(function, nullptr));
}

}  // namespace

int main() {
  a_capture_becomes_a_graph();
  branches_join_a_capture();
  unjoined_work_spoils_a_capture();
  captures_do_not_mix();
  calls_that_spoil_a_capture();
  the_null_stream_spoils_blocking_captures_only();
  destroying_a_stream_ends_its_capture();
  an_exec_runs_once_at_a_time();
  kernels_and_clusters();
  std::puts("fake_graphs: ok");
}
