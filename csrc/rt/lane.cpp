#include "rt/lane.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace st::rt {

void Launch::begin(const sched::Start& what, TimeNs now) {
  start = what;
  start_ns = now;
  distinct_tenants = 0;
  requests.clear();
  tokens.clear();
  tenants.clear();
  samples.clear();
}

void Launch::add(const InFlight& request) {
  requests.push_back(request.request.id);
  tokens.push_back(request.end.token);
  tenants.push_back(request.request.tenant);
  samples.push_back(request.request.samples);
}

st_launch Launch::view() const {
  return {.id = start.launch,
          .lane = start.lane,
          .family = start.family,
          .samples = start.samples,
          .bucket = start.bucket,
          .count = static_cast<std::uint32_t>(tokens.size()),
          .tokens = tokens.data(),
          .tenants = tenants.data(),
          .request_samples = samples.data()};
}

void Launch::run_native() {
  const st_launch seen = view();
  const std::int32_t code = function ? function.call(function.context, &seen) : kNoFunction;
  std::fill(codes.begin(), codes.end(), code);
  finish_ns = now_ns();
}

void Lane::offer() {
  launch_.codes.assign(launch_.requests.size(), 0);
  state_.store(State::kReady, std::memory_order_release);
  changed_.notify();
}

void Lane::finished() { state_.store(State::kIdle, std::memory_order_relaxed); }

void Lane::abandon() { state_.store(State::kAbandoned, std::memory_order_relaxed); }

Launch* Lane::try_take() {
  State ready = State::kReady;
  if (state_.load(std::memory_order_relaxed) != ready) return nullptr;
  const bool got = state_.compare_exchange_strong(ready, State::kHeld, std::memory_order_acquire,
                                                  std::memory_order_relaxed);
  return got ? &launch_ : nullptr;
}

Launch* Lane::take(TimeNs until) {
  Launch* taken = nullptr;
  changed_.await([&] { return (taken = try_take()) != nullptr || closed(); }, until);
  return taken;
}

bool Lane::finish(LaunchId launch, std::span<const std::int32_t> codes) {
  State state = state_.load(std::memory_order_relaxed);
  if (state == State::kAbandoned) return false;
  if (state != State::kHeld || launch_.start.launch != launch) {
    throw std::invalid_argument("launch: " + std::to_string(launch) + " is not held by lane " +
                                std::to_string(id_));
  }
  if (!codes.empty() && codes.size() != launch_.codes.size()) {
    throw std::invalid_argument("statuses: expected " + std::to_string(launch_.codes.size()) +
                                ", got " + std::to_string(codes.size()));
  }
  std::copy(codes.begin(), codes.end(), launch_.codes.begin());
  launch_.finish_ns = now_ns();
  return state_.compare_exchange_strong(state, State::kDone, std::memory_order_relaxed);
}

void Lane::close() {
  closed_.store(true, std::memory_order_release);
  changed_.notify();
}

}  // namespace st::rt
