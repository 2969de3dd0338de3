// capture.cpp: turning what is given to streams into graphs.
#include <algorithm>

#include "fake/state.h"

namespace st::fake {

CUresult State::record(Stream& stream, const Operation& operation) {
  Capture& capture = *stream.capture;
  if (capture.invalid) return kStreamCaptureInvalidated;
  std::vector<Node>& nodes = capture.graph.nodes;
  nodes.push_back({handle<CUgraphNode>(), operation, stream.capture_tail});
  stream.capture_tail = {nodes.size() - 1};
  return kSuccess;
}

// join: a stream waits for an event, and one of them belongs to a capture. Both become part of it.
CUresult State::join(Stream& stream, Event& event) {
  const std::shared_ptr<Capture> capture = event.capture;
  if (stream.capture == nullptr) {
    if (capture->members.empty()) return kCapturedEvent;  // that capture has ended
    if (capture->invalid) return kStreamCaptureInvalidated;
    if (&stream == null_stream.get()) return kStreamCaptureUnsupported;
    stream.capture = capture;
    stream.capture_tail.clear();
    capture->members.insert(&stream);
  }
  if (stream.capture->invalid) return kStreamCaptureInvalidated;
  if (capture == nullptr && event.marker == nullptr) return kSuccess;  // never recorded
  if (capture != stream.capture) {
    invalidate(*stream.capture);
    if (capture != nullptr && !capture->members.empty()) {
      invalidate(*capture);
      return kCaptureMerge;
    }
    return kCaptureIsolation;
  }
  std::vector<std::size_t>& tail = stream.capture_tail;
  tail.insert(tail.end(), event.capture_tail.begin(), event.capture_tail.end());
  std::sort(tail.begin(), tail.end());
  tail.erase(std::unique(tail.begin(), tail.end()), tail.end());
  return kSuccess;
}

bool State::implicit(const Stream& stream) {
  if (&stream != null_stream.get()) return false;
  bool touched = false;
  for (const auto& [handle, other] : streams.all()) {
    if (!other->blocking || other->capture == nullptr) continue;
    invalidate(*other->capture);
    touched = true;
  }
  return touched;
}

CUresult State::outside_capture(CUstream handle, std::shared_ptr<Stream>& stream) {
  if (const CUresult code = find(handle, stream); code != 0) return code;
  if (stream->capture == nullptr) return kSuccess;
  invalidate(*stream->capture);
  return kStreamCaptureUnsupported;
}

void State::leave(Stream& stream) {
  if (stream.capture == nullptr) return;
  const std::shared_ptr<Capture> capture = stream.capture;
  invalidate(*capture);
  capture->members.erase(&stream);
  if (capture->origin == &stream) end(*capture);
}

void State::end(Capture& capture) {
  for (Stream* member : capture.members) {
    member->capture_tail.clear();
    if (member != capture.origin) member->capture.reset();
  }
  capture.members.clear();
  std::erase_if(captures, [&](const auto& each) { return each.get() == &capture; });
}

namespace {

// Whether everything that other streams did comes before the end of the origin.
bool joined(const Capture& capture) {
  const std::vector<Node>& nodes = capture.graph.nodes;
  std::vector<bool> reached(nodes.size());
  std::vector<std::size_t> open = capture.origin->capture_tail;
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    open.insert(open.end(), nodes[node].after.begin(), nodes[node].after.end());
  }
  return std::all_of(capture.members.begin(), capture.members.end(), [&](const Stream* stream) {
    return std::all_of(stream->capture_tail.begin(), stream->capture_tail.end(),
                       [&](std::size_t node) { return reached[node]; });
  });
}

}  // namespace

CUresult FakeDriver::cuStreamBeginCapture(CUstream stream, int mode) {
  return state_->call(Entry::cuStreamBeginCapture, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> found;
    if (const CUresult code = s.find(stream, found); code != 0) return code;
    if (mode < 0 || mode > 2) return kInvalidValue;
    if (found == s.null_stream) return kStreamCaptureUnsupported;
    if (found->capture != nullptr) return kIllegalState;
    found->capture = std::make_shared<Capture>(
        Capture{.origin = found.get(), .thread = this_thread(), .mode = mode});
    found->capture->members.insert(found.get());
    found->capture_tail.clear();
    s.captures.insert(found->capture);
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return state_->call(Entry::cuStreamEndCapture, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> found;
    if (const CUresult code = s.find(stream, found); code != 0) return code;
    if (graph == nullptr) return kInvalidValue;
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = found->capture;
    if (capture == nullptr) return kIllegalState;
    if (capture->mode != kCaptureRelaxed && capture->thread != this_thread()) {
      return kCaptureWrongThread;
    }
    if (capture->origin != found.get()) {
      s.invalidate(*capture);
      return kCaptureUnmatched;
    }
    const bool valid = !capture->invalid;
    const bool all_joined = valid && joined(*capture);
    s.end(*capture);
    found->capture.reset();
    if (!valid) return kStreamCaptureInvalidated;
    if (!all_joined) return kCaptureUnjoined;
    *graph = s.add_graph(std::move(capture->graph));
    return kSuccess;
  });
}

CUresult FakeDriver::cuStreamIsCapturing(CUstream stream, int* status) {
  return state_->call(Entry::cuStreamIsCapturing, [&]() -> CUresult {
    State& s = *state_;
    std::shared_ptr<Stream> found;
    if (const CUresult code = s.find(stream, found); code != 0) return code;
    if (status == nullptr) return kInvalidValue;
    if (s.implicit(*found)) return kStreamCaptureImplicit;
    *status = kCaptureNone;
    if (found->capture != nullptr) {
      *status = found->capture->invalid ? kCaptureInvalidated : kCaptureActive;
    }
    return kSuccess;
  });
}

}  // namespace st::fake
