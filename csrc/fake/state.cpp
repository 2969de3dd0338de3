#include "fake/state.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace st::fake {
namespace {

thread_local bool in_host_function_ = false;
// By State, since a thread may use several drivers. A destroyed State leaves a few bytes behind.
thread_local std::unordered_map<const State*, std::pair<std::uint64_t, CUcontext>> current_;

std::atomic<std::uint64_t> states_{0};

FakeOptions chosen_options(FakeOptions options) {
  if (options.driver_version == 0)
    options.driver_version = data_sheet(options.device).driver_version;
  return options;
}

DataSheet chosen_sheet(const FakeOptions& options) {
  DataSheet sheet = data_sheet(options.device);
  if (options.memory_bytes != 0) sheet.memory_bytes = options.memory_bytes;
  if (options.whole_groups != 0) sheet.whole_groups = options.whole_groups;
  if (options.driver_version < kSplitVersion) sheet.domains = 1;
  if (sheet.whole_groups * sheet.minimum > sheet.sms) {
    throw std::invalid_argument("whole_groups: " + std::to_string(sheet.whole_groups) + " of " +
                                std::to_string(sheet.minimum) + " SMs are more than the device's " +
                                std::to_string(sheet.sms));
  }
  return sheet;
}

}  // namespace

std::uint64_t this_thread() {
  static std::atomic<std::uint64_t> threads{0};
  thread_local const std::uint64_t mine = ++threads;
  return mine;
}

State::State(FakeOptions chosen)
    : options(chosen_options(std::move(chosen))),
      sheet(chosen_sheet(options)),
      engine(sheet, options.interference),
      memory(std::make_shared<AddressSpace>(sheet.memory_bytes)),
      primary(handle<CUcontext>()) {
  generation = ++states_;
  log.reserve(FakeDriver::kLogged);
}

CUresult State::enter(Entry entry) {
  if (lacking(entry, options.driver_version)) return kNotFound;
  if (!in_host) {
    now_ns += options.call_ns;
    memory->sweep(engine.oldest());
  }
  if (needs(entry) == Needs::kNothing) return kSuccess;
  if (!initialized) return kNotInitialized;
  if (needs(entry) == Needs::kContext) {
    if (current() == nullptr) return kInvalidContext;
    const bool green = current() != primary;
    if (references == 0 || (green && !green_contexts.contains(current()))) {
      return kContextIsDestroyed;
    }
  }
  if (unsafe_in_capture(entry)) {
    bool forbidden = false;
    for (const auto& capture : captures) {
      if (capture->mode > kCaptureThreadLocal) continue;
      if (capture->mode == kCaptureThreadLocal && capture->thread != this_thread()) continue;
      invalidate(*capture);
      forbidden = true;
    }
    if (forbidden) return kStreamCaptureUnsupported;
  }
  return touches_context(entry) ? engine.failure() : kSuccess;
}

void State::note(Entry entry, CUresult code) {
  const Called called{entry, code, now_ns};
  if (log.size() < FakeDriver::kLogged) {
    log.push_back(called);
  } else {
    log[logged % FakeDriver::kLogged] = called;
  }
  ++logged;
}

bool State::in_host_function() { return in_host_function_; }

CUcontext State::current() const {
  const auto found = current_.find(this);
  if (found == current_.end() || found->second.first != generation) return nullptr;
  return found->second.second;
}

void State::set_current(CUcontext context) { current_[this] = {generation, context}; }

void State::open_primary() {
  SmSet all;
  for (unsigned sm = 0; sm < sheet.sms; ++sm) all.set(sm);
  null_stream = std::make_shared<Stream>(Stream{primary, nullptr, all, true, 0, {}, {}, {}});
}

// Work in flight ends without effect: nothing could see it.
void State::close_primary() {
  engine.abort();
  engine.forgive();
  references = 0;
  null_stream.reset();
  for (const auto& capture : captures) capture->members.clear();
  captures.clear();
  greens.orphan_all();
  green_contexts.clear();
  streams.orphan_all();
  events.orphan_all();
  execs.orphan_all();
  modules.orphan_all();
  functions.orphan_all();
  memory = std::make_shared<AddressSpace>(sheet.memory_bytes);
}

CUresult State::find(CUstream handle, std::shared_ptr<Stream>& stream) {
  constexpr std::uintptr_t kLegacy = 1;  // CU_STREAM_LEGACY
  if (reinterpret_cast<std::uintptr_t>(handle) > kLegacy) return streams.find(handle, stream);
  stream = null_stream;
  return kSuccess;
}

void State::run_host(const TaskRef& host) {
  const std::shared_ptr<AddressSpace> kept = memory;
  in_host = true;
  mutex.unlock();
  in_host_function_ = true;
  host->host();
  in_host_function_ = false;
  mutex.lock();
  in_host = false;
  engine.ended(host);
  host_ended.notify_all();
}

void State::drive(TimeNs to) {
  while (!in_host) {
    const TaskRef host = engine.advance(to);
    if (host == nullptr) return;
    run_host(host);
  }
}

CUresult State::poll(const TaskRef& task) {
  drive(now_ns);
  if (engine.failure() != 0) return engine.failure();
  if (task == nullptr || task->done) return kSuccess;
  if (!in_host) now_ns += options.poll_ns;
  return kNotReady;
}

CUresult State::wait(const TaskRef& task) {
  drive(now_ns);
  while (task != nullptr && !task->done) {
    if (in_host) {
      host_ended.wait(mutex);
    } else {
      drive(engine.next().value());  // what is not done waits for something that is under way
    }
  }
  if (task != nullptr) now_ns = std::max(now_ns, task->done_ns);
  return engine.failure();
}

}  // namespace st::fake
