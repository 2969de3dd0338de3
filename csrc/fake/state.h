// state.h: everything the fake driver knows, and the frame that every call runs in.
//
// Invariants: 1. a handle is a number that is never given twice, so a stale one or one of another
// family is always unknown (400); what the end of its context took with it is known to be so (709).
// 2. Streams, events and execs hold the last task given to them; order is those tasks' order.
// 3. A stream captures exactly while it has a Capture.
//
// Stream, Event, Graph, Exec, Green and Module are here what a driver keeps behind a handle; the
// classes of these names in cuda/ own such a handle on the other side of the driver's interface.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "fake/address_space.h"
#include "fake/engine.h"
#include "fake/fake_driver.h"
#include "fake/needs.h"

namespace st::fake {

inline constexpr CUresult kNoBinaryForGpu = 209;
inline constexpr CUresult kIllegalState = 401;
inline constexpr CUresult kNotPermitted = 800;
inline constexpr CUresult kCaptureMerge = 902;
inline constexpr CUresult kCaptureUnmatched = 903;
inline constexpr CUresult kCaptureUnjoined = 904;
inline constexpr CUresult kCaptureIsolation = 905;
inline constexpr CUresult kCapturedEvent = 907;
inline constexpr CUresult kCaptureWrongThread = 908;
inline constexpr int kCaptureRelaxed = 2;
inline constexpr int kSplitVersion = 13010;  // the first with cuDevSmResourceSplit and work queues
inline constexpr int kLeastPriority = 0;
inline constexpr int kGreatestPriority = -5;

// What a stream runs or a graph's node does.
struct Operation {
  int type = -1;  // kNodeKernel, ...; -1 does nothing
  CUDA_KERNEL_NODE_PARAMS kernel{};
  double flops = 0, bytes = 0;
  SmSet sms{};
  CUdeviceptr to = 0, from = 0;
  std::size_t size = 0;
  unsigned char value = 0;
  std::shared_ptr<std::vector<char>> staged{};  // of a copy from memory the driver does not know
  CUhostFn function = nullptr;
  void* data = nullptr;
};

struct Node {
  CUgraphNode handle;
  Operation operation;
  std::vector<std::size_t> after;
};
struct Graph {
  std::vector<Node> nodes{};
};

struct Stream;
struct Capture {
  Stream* origin;
  std::uint64_t thread;
  int mode;
  bool invalid = false;
  Graph graph{};
  std::set<Stream*> members{};  // capturing streams, the origin among them
};

struct Stream {
  CUcontext context;
  CUgreenCtx green;  // nullptr: of the primary context
  SmSet sms;
  bool blocking;  // waits for the null stream, and the other way round
  int priority;
  TaskRef tail;
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> capture_tail;  // nodes that the next one follows
};
struct Event {
  bool timing;
  TaskRef marker;
  std::shared_ptr<Capture> capture;  // of its last record, if that was captured
  std::vector<std::size_t> capture_tail;
};
struct Exec {
  Graph graph;
  TaskRef last;
};
struct Kernel {
  CUmodule module;
  double flops = 0, bytes = 0;
  unsigned cluster = 1;
};
struct Module {
  std::map<std::string, CUfunction, std::less<>> functions;
};

// SMs as CUdevResource carries them; `split` says which call made it.
struct Resource {
  std::uint64_t split = 0;
  SmSet sms;
  bool divisible = false;  // results of a split are not, before they went through a green context
  unsigned alignment = 0;  // SMs that lie together
  int domain = -1;         // the locality domain that it was asked to lie in
};
struct Green {
  CUcontext context;
  Resource resource;
  std::uint64_t current_in = 0;  // the thread
};

// Objects of one kind by handle.
template <typename Handle, typename Object>
class HandleTable {
 public:
  void add(Handle handle, std::shared_ptr<Object> object) { live_[handle] = std::move(object); }
  CUresult find(Handle handle, std::shared_ptr<Object>& object) const {
    if (const auto found = live_.find(handle); found != live_.end()) {
      object = found->second;
      return kSuccess;
    }
    return orphans_.contains(handle) ? kContextIsDestroyed : kInvalidHandle;
  }
  void erase(Handle handle) { live_.erase(handle); }
  // orphan: its context is gone; it counts on when nothing can free it any more.
  void orphan(Handle handle, bool leaks) {
    live_.erase(handle);
    orphans_.insert(handle);
    leaked_ += leaks;
  }
  void orphan_all() {
    while (!live_.empty()) orphan(live_.begin()->first, false);
    leaked_ = 0;
  }
  std::size_t count() const { return live_.size() + leaked_; }
  const auto& all() const { return live_; }

 private:
  std::map<Handle, std::shared_ptr<Object>> live_;
  std::set<Handle> orphans_;
  std::size_t leaked_ = 0;
};

struct State {
  explicit State(FakeOptions options);

  const FakeOptions options;
  const DataSheet sheet;
  std::mutex mutex;
  std::condition_variable_any host_ended;
  bool in_host = false;  // a thread runs a host function
  bool initialized = false;
  TimeNs now_ns = 0;
  Engine engine;
  std::shared_ptr<AddressSpace> memory;  // a host function that runs keeps it while a context ends
  std::uint64_t serial = 0;              // of handles and splits

  std::uint64_t generation = 0;  // tells States at one address apart
  CUcontext primary;             // its handle stays the same for the process
  unsigned references = 0;
  std::shared_ptr<Stream> null_stream;
  std::map<CUdevResourceDesc, Resource> descriptors;
  std::map<CUcontext, CUgreenCtx> green_contexts;
  HandleTable<CUgreenCtx, Green> greens;
  HandleTable<CUstream, Stream> streams;
  HandleTable<CUevent, Event> events;
  HandleTable<CUgraph, Graph> graphs;
  std::map<CUgraphNode, std::shared_ptr<Graph>> nodes;
  HandleTable<CUgraphExec, Exec> execs;
  HandleTable<CUmodule, Module> modules;
  HandleTable<CUfunction, Kernel> functions;
  std::set<std::shared_ptr<Capture>> captures;
  std::vector<Called> log;
  std::size_t logged = 0;

  template <typename Handle>
  Handle handle() {
    if constexpr (std::is_pointer_v<Handle>) {
      return reinterpret_cast<Handle>(0x10000 + 16 * ++serial);
    } else {
      return 0x10000 + 16 * ++serial;
    }
  }

  // call: the frame of an entry. `body` runs under the mutex once everything the entry needs is
  // there; its code is logged, or the sticky one instead.
  template <typename Body>
  CUresult call(Entry entry, Body body) {
    if (in_host_function() && !lets_hosts(entry)) return kNotPermitted;
    std::unique_lock lock(mutex);
    CUresult code = enter(entry);
    if (code == kSuccess || (code == engine.failure() && destroys(entry))) {
      const CUresult result = body();
      if (code == kSuccess) code = result;
    }
    note(entry, code);
    return code;
  }
  CUresult enter(Entry entry);
  void note(Entry entry, CUresult code);
  static bool in_host_function();

  CUcontext current() const;
  void set_current(CUcontext context);
  void open_primary();
  void close_primary();

  CUresult find(CUstream handle, std::shared_ptr<Stream>& stream);
  CUstream add_stream(CUcontext context, CUgreenCtx green, const SmSet& sms, bool blocking,
                      int priority);
  CUresult enqueue(Stream& stream, const Operation& operation);
  // follow: the stream's next work; it also comes after these.
  TaskRef follow(Stream& stream, Task task, std::vector<TaskRef> after);
  std::vector<TaskRef> before(const Stream& stream) const;
  Task task_of(const Operation& operation, bool in_graph);
  CUresult copy(const Operation& operation) const;
  CUresult set(const Operation& operation) const;

  CUresult record(Stream& stream, const Operation& operation);
  CUresult join(Stream& stream, Event& event);
  // implicit: whether this is the null stream, which would wait for a blocking stream that
  // captures; that capture is invalid then.
  bool implicit(const Stream& stream);
  // outside_capture: the stream; 900, and its capture is invalid, if it captures.
  CUresult outside_capture(CUstream handle, std::shared_ptr<Stream>& stream);
  void leave(Stream& stream);  // its capture, which is invalid from now on
  void end(Capture& capture);
  static void invalidate(Capture& capture) { capture.invalid = true; }

  CUgraph add_graph(Graph graph);
  const Node* find(CUgraphNode node) const;
  void launch(Exec& exec, Stream& stream);

  // poll: whether the task is done now; costs time if not. wait: until it is.
  CUresult poll(const TaskRef& task);
  CUresult wait(const TaskRef& task);
  void drive(TimeNs to);  // without waiting for another thread's host function
  void run_host(const TaskRef& host);
};

std::uint64_t this_thread();  // a number that no other thread ever has
// cluster_limit: the largest cluster that can run on these SMs.
unsigned cluster_limit(const DataSheet& sheet, const SmSet& sms);

}  // namespace st::fake
