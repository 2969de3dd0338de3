// streams.cpp: streams and events.
#include <algorithm>
#include <cstring>

#include "fake/state.h"

namespace st::fake {

// Only what was not given to a stream of a capture becomes tasks.
CUresult State::enqueue(Stream& stream, const Operation& operation) {
  if (stream.capture != nullptr) return record(stream, operation);
  if (implicit(stream)) return kStreamCaptureImplicit;
  follow(stream, task_of(operation, false), {});
  return kSuccess;
}

// The null stream and the blocking ones wait for each other.
std::vector<TaskRef> State::before(const Stream& stream) const {
  std::vector<TaskRef> tasks{stream.tail};
  if (&stream == null_stream.get()) {
    for (const auto& [handle, other] : streams.all()) {
      if (other->blocking) tasks.push_back(other->tail);
    }
  } else if (stream.blocking && null_stream != nullptr) {
    tasks.push_back(null_stream->tail);
  }
  return tasks;
}

TaskRef State::follow(Stream& stream, Task task, std::vector<TaskRef> after) {
  const std::vector<TaskRef> own = before(stream);
  after.insert(after.end(), own.begin(), own.end());
  stream.tail = engine.add(std::move(task), after, now_ns);
  return stream.tail;
}

Task State::task_of(const Operation& operation, bool in_graph) {
  Task task;
  switch (operation.type) {
    case kNodeKernel:
      task.delay_ns = in_graph ? options.node_ns : options.launch_ns;
      task.flops = operation.flops;
      task.bytes = operation.bytes;
      task.sms = operation.sms;
      break;
    case kNodeMemcpy: {
      const bool on_device = memory->of_device(operation.to) && memory->of_device(operation.from);
      const double rate = on_device ? sheet.bandwidth / 2 : sheet.link;  // reads and writes
      task.delay_ns =
          options.copy_ns + static_cast<TimeNs>(static_cast<double>(operation.size) / rate);
      task.effect = [this, operation] { return copy(operation); };
      break;
    }
    case kNodeMemset:
      task.delay_ns = options.copy_ns +
                      static_cast<TimeNs>(static_cast<double>(operation.size) / sheet.bandwidth);
      task.effect = [this, operation] { return set(operation); };
      break;
    case kNodeHost:
      task.host = [operation] { operation.function(operation.data); };
      break;
    default:
      break;
  }
  return task;
}

CUresult State::copy(const Operation& operation) const {
  if (!memory->usable(operation.to, operation.size, true)) return kIllegalAddress;
  if (!memory->usable(operation.from, operation.size, true)) return kIllegalAddress;
  const void* from = operation.staged != nullptr ? operation.staged->data()
                                                 : reinterpret_cast<const void*>(operation.from);
  std::memmove(reinterpret_cast<void*>(operation.to), from, operation.size);
  return kSuccess;
}

CUresult State::set(const Operation& operation) const {
  if (!memory->usable(operation.to, operation.size, true)) return kIllegalAddress;
  std::memset(reinterpret_cast<void*>(operation.to), operation.value, operation.size);
  return kSuccess;
}

CUstream State::add_stream(CUcontext context, CUgreenCtx green, const SmSet& sms, bool blocking,
                           int priority) {
  const auto made = handle<CUstream>();
  priority = std::clamp(priority, kGreatestPriority, kLeastPriority);
  streams.add(
      made, std::make_shared<Stream>(Stream{context, green, sms, blocking, priority, {}, {}, {}}));
  return made;
}

CUresult FakeDriver::cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  return state_->call(Entry::cuStreamCreateWithPriority, [&]() -> CUresult {
    State& s = *state_;
    if (stream == nullptr || (flags & ~kStreamNonBlocking) != 0) return kInvalidValue;
    CUgreenCtx green = nullptr;
    SmSet sms = s.null_stream->sms;
    if (const auto found = s.green_contexts.find(s.current()); found != s.green_contexts.end()) {
      green = found->second;
      std::shared_ptr<Green> current;
      s.greens.find(green, current);
      sms = current->resource.sms;
    }
    *stream = s.add_stream(s.current(), green, sms, flags == 0, priority);
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamDestroy(CUstream stream) {
  return state_->call(Entry::cuStreamDestroy, [&]() -> CUresult {
    std::shared_ptr<Stream> found;
    if (const CUresult code = state_->streams.find(stream, found); code != 0) return code;
    state_->leave(*found);
    state_->streams.erase(stream);  // its work goes on
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamSynchronize(CUstream stream) {
  return state_->call(Entry::cuStreamSynchronize, [&]() -> CUresult {
    std::shared_ptr<Stream> found;
    if (const CUresult code = state_->outside_capture(stream, found); code != 0) return code;
    return state_->wait(found->tail);
  });
}

CUresult FakeDriver::cuStreamQuery(CUstream stream) {
  return state_->call(Entry::cuStreamQuery, [&]() -> CUresult {
    std::shared_ptr<Stream> found;
    if (const CUresult code = state_->outside_capture(stream, found); code != 0) return code;
    return state_->poll(found->tail);
  });
}

CUresult FakeDriver::cuStreamGetPriority(CUstream stream, int* priority) {
  return state_->call(Entry::cuStreamGetPriority, [&]() -> CUresult {
    std::shared_ptr<Stream> found;
    if (const CUresult code = state_->find(stream, found); code != 0) return code;
    if (priority == nullptr) return kInvalidValue;
    *priority = found->priority;
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  return state_->call(Entry::cuStreamWaitEvent, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> waiting;
    std::shared_ptr<Event> found;
    if (const CUresult code = s.find(stream, waiting); code != 0) return code;
    if (const CUresult code = s.events.find(event, found); code != 0) return code;
    if (flags != 0) return kInvalidValue;
    if (waiting->capture != nullptr || found->capture != nullptr) {
      return s.join(*waiting, *found);
    }
    if (found->marker != nullptr) s.follow(*waiting, {}, {found->marker});
    return kSuccess;
  });
}

CUresult FakeDriver::cuEventCreate(CUevent* event, unsigned flags) {
  return state_->call(Entry::cuEventCreate, [&]() -> CUresult {
    if (event == nullptr || (flags & ~(kEventBlockingSync | kEventDisableTiming)) != 0) {
      return kInvalidValue;
    }
    *event = state_->handle<CUevent>();
    const bool timing = (flags & kEventDisableTiming) == 0;
    state_->events.add(*event, std::make_shared<Event>(Event{timing, {}, {}, {}}));
    return kSuccess;
  });
}

CUresult FakeDriver::cuEventDestroy(CUevent event) {
  return state_->call(Entry::cuEventDestroy, [&]() -> CUresult {
    std::shared_ptr<Event> found;
    if (const CUresult code = state_->events.find(event, found); code != 0) return code;
    state_->events.erase(event);
    return kSuccess;
  });
}

CUresult FakeDriver::cuEventRecord(CUevent event, CUstream stream) {
  return state_->call(Entry::cuEventRecord, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> recording;
    std::shared_ptr<Event> found;
    if (const CUresult code = s.find(stream, recording); code != 0) return code;
    if (const CUresult code = s.events.find(event, found); code != 0) return code;
    if (recording->capture != nullptr && recording->capture->invalid) {
      return kStreamCaptureInvalidated;
    }
    if (s.implicit(*recording)) return kStreamCaptureImplicit;
    found->capture = recording->capture;
    found->capture_tail = recording->capture_tail;
    found->marker = recording->capture != nullptr ? nullptr : s.follow(*recording, {}, {});
    return kSuccess;
  });
}

CUresult FakeDriver::cuEventQuery(CUevent event) {
  return state_->call(Entry::cuEventQuery, [&]() -> CUresult {
    std::shared_ptr<Event> found;
    if (const CUresult code = state_->events.find(event, found); code != 0) return code;
    if (found->capture != nullptr) return kCapturedEvent;
    return state_->poll(found->marker);
  });
}

CUresult FakeDriver::cuEventSynchronize(CUevent event) {
  return state_->call(Entry::cuEventSynchronize, [&]() -> CUresult {
    std::shared_ptr<Event> found;
    if (const CUresult code = state_->events.find(event, found); code != 0) return code;
    if (found->capture != nullptr) return kCapturedEvent;
    return state_->wait(found->marker);
  });
}

CUresult FakeDriver::cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  return state_->call(Entry::cuEventElapsedTime, [&]() -> CUresult {
    std::shared_ptr<Event> first, last;
    if (const CUresult code = state_->events.find(begin, first); code != 0) return code;
    if (const CUresult code = state_->events.find(end, last); code != 0) return code;
    if (milliseconds == nullptr) return kInvalidValue;
    if (!first->timing || !last->timing) return kInvalidHandle;
    if (first->capture != nullptr || last->capture != nullptr) return kCapturedEvent;
    if (first->marker == nullptr || last->marker == nullptr) return kInvalidHandle;
    if (!first->marker->done || !last->marker->done) return kNotReady;
    const TimeNs elapsed_ns = last->marker->done_ns - first->marker->done_ns;
    *milliseconds = static_cast<float>(static_cast<double>(elapsed_ns) / 1e6);
    return kSuccess;
  });
}

}  // namespace st::fake
