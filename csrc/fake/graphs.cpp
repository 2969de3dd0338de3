// graphs.cpp: graphs and their execution.
#include <algorithm>

#include "fake/state.h"

namespace st::fake {

CUgraph State::add_graph(Graph graph) {
  const auto made = handle<CUgraph>();
  const auto kept = std::make_shared<Graph>(std::move(graph));
  for (const Node& node : kept->nodes) nodes[node.handle] = kept;
  graphs.add(made, kept);
  return made;
}

const Node* State::find(CUgraphNode node) const {
  const auto graph = nodes.find(node);
  if (graph == nodes.end()) return nullptr;
  const std::vector<Node>& all = graph->second->nodes;
  return &*std::find_if(all.begin(), all.end(), [&](const Node& n) { return n.handle == node; });
}

// An exec runs once at a time, on whatever streams it is launched.
void State::launch(Exec& exec, Stream& stream) {
  const TaskRef begin = follow(stream, {}, {exec.last});
  std::vector<TaskRef> tasks;
  for (const Node& node : exec.graph.nodes) {
    std::vector<TaskRef> after{begin};
    for (const std::size_t earlier : node.after) after.push_back(tasks[earlier]);
    tasks.push_back(engine.add(task_of(node.operation, true), after, now_ns));
  }
  exec.last = follow(stream, {}, tasks);
}

CUresult FakeDriver::cuGraphDestroy(CUgraph graph) {
  return state_->call(Entry::cuGraphDestroy, [&]() -> CUresult {
    std::shared_ptr<Graph> found;
    if (const CUresult code = state_->graphs.find(graph, found); code != 0) return code;
    for (const Node& node : found->nodes) state_->nodes.erase(node.handle);
    state_->graphs.erase(graph);
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, std::size_t* count) {
  return state_->call(Entry::cuGraphGetNodes, [&]() -> CUresult {
    std::shared_ptr<Graph> found;
    if (const CUresult code = state_->graphs.find(graph, found); code != 0) return code;
    if (count == nullptr) return kInvalidValue;
    const std::size_t room = nodes == nullptr ? 0 : *count;
    for (std::size_t i = 0; i < room; ++i) {
      nodes[i] = i < found->nodes.size() ? found->nodes[i].handle : nullptr;
    }
    *count = nodes == nullptr ? found->nodes.size() : std::min(room, found->nodes.size());
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphNodeGetType(CUgraphNode node, int* type) {
  return state_->call(Entry::cuGraphNodeGetType, [&]() -> CUresult {
    const Node* found = state_->find(node);
    if (found == nullptr) return kInvalidHandle;
    if (type == nullptr) return kInvalidValue;
    *type = found->operation.type;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphKernelNodeGetParams(CUgraphNode node,
                                                CUDA_KERNEL_NODE_PARAMS* parameters) {
  return state_->call(Entry::cuGraphKernelNodeGetParams, [&]() -> CUresult {
    const Node* found = state_->find(node);
    if (found == nullptr) return kInvalidHandle;
    if (parameters == nullptr || found->operation.type != kNodeKernel) return kInvalidValue;
    *parameters = found->operation.kernel;
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph,
                                                 std::uint64_t flags) {
  return state_->call(Entry::cuGraphInstantiateWithFlags, [&]() -> CUresult {
    constexpr std::uint64_t kAllFlags = 15;
    std::shared_ptr<Graph> found;
    if (const CUresult code = state_->graphs.find(graph, found); code != 0) return code;
    if (exec == nullptr || (flags & ~kAllFlags) != 0) return kInvalidValue;
    *exec = state_->handle<CUgraphExec>();
    state_->execs.add(*exec, std::make_shared<Exec>(Exec{*found, {}}));
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphExecDestroy(CUgraphExec exec) {
  return state_->call(Entry::cuGraphExecDestroy, [&]() -> CUresult {
    std::shared_ptr<Exec> found;
    if (const CUresult code = state_->execs.find(exec, found); code != 0) return code;
    state_->execs.erase(exec);  // what was launched goes on
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphUpload(CUgraphExec exec, CUstream stream) {
  return state_->call(Entry::cuGraphUpload, [&]() -> CUresult {
    std::shared_ptr<Exec> found;
    std::shared_ptr<Stream> given;
    if (const CUresult code = state_->execs.find(exec, found); code != 0) return code;
    if (const CUresult code = state_->outside_capture(stream, given); code != 0) return code;
    Task upload;
    upload.delay_ns = state_->options.copy_ns;
    found->last = state_->follow(*given, std::move(upload), {found->last});
    return kSuccess;
  });
}

CUresult FakeDriver::cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  return state_->call(Entry::cuGraphLaunch, [&]() -> CUresult {
    std::shared_ptr<Exec> found;
    std::shared_ptr<Stream> given;
    if (const CUresult code = state_->execs.find(exec, found); code != 0) return code;
    // A graph launched in a capture would become a child graph; that is not modelled.
    if (const CUresult code = state_->outside_capture(stream, given); code != 0) return code;
    if (state_->implicit(*given)) return kStreamCaptureImplicit;
    state_->launch(*found, *given);
    return kSuccess;
  });
}

}  // namespace st::fake
