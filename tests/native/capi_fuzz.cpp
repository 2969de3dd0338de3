// capi_fuzz.cpp: the C API with arguments that make no sense: a status and a line, never a crash.
#undef NDEBUG
#include <array>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "capi/spacetime.h"
#include "sim/random.h"

namespace {

// Busy for a while, so that queues fill.
int busy(void*, const st_launch*) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
  while (std::chrono::steady_clock::now() < until) {
  }
  return 0;
}

class Fuzz {
 public:
  explicit Fuzz(std::uint64_t seed) : random_(seed, 0) { open(); }
  ~Fuzz() { st_free(session_); }

  void step() {
    const int status = call();
    assert(status >= ST_OK && status < ST_INTERNAL);
    ++seen_[static_cast<std::size_t>(status)];
    if (status == ST_OK) return;
    assert(st_last_error()[0] != '\0' && std::strchr(st_last_error(), '\n') == nullptr);
    assert(std::strcmp(st_error_text(status), "an unknown status") != 0);
  }
  const std::array<std::uint64_t, ST_INTERNAL + 1>& seen() const { return seen_; }

 private:
  std::uint32_t below(std::uint32_t limit) {
    return static_cast<std::uint32_t>(random_.uniform() * limit);
  }
  bool rarely() { return below(8) == 0; }

  template <typename Number>
  Number number() {
    using Limits = std::numeric_limits<Number>;
    constexpr std::array<Number, 8> odd = {
        0, 1, 2, 3, 4, Limits::max(), Limits::min(), Limits::max() / 2};
    return odd[below(odd.size())];
  }
  double real() {
    const std::array<double, 7> odd = {0,
                                       1,
                                       -1,
                                       1e300,
                                       1e-300,
                                       std::numeric_limits<double>::quiet_NaN(),
                                       std::numeric_limits<double>::infinity()};
    return odd[below(odd.size())];
  }
  template <typename Item>
  Item* maybe(Item* item) {
    return rarely() ? nullptr : item;
  }
  template <typename Struct>
  void sized(Struct& made) {
    if (rarely()) made.size = number<std::uint32_t>();
  }
  st_session session() { return rarely() ? number<std::uint64_t>() : session_; }
  st_request request() {
    return rarely() || requests_.empty()
               ? number<std::uint64_t>()
               : requests_[below(static_cast<std::uint32_t>(requests_.size()))];
  }
  // One list of 4, and a count that fits it or a pointer that is NULL.
  std::uint32_t count() { return below(5); }

  void open() {
    st_options options = ST_OPTIONS_INIT;
    const std::array<const char*, 3> policies = {"space-time", "gpulet", "time-only"};
    options.policy = policies[below(3)];
    options.capacity = 8;
    assert(st_open("cpu", &options, &session_) == ST_OK);
    const std::array<std::uint32_t, 2> buckets = {1, 4};
    std::uint32_t made = 0;
    assert(st_add_lane(session_, nullptr, 0, nullptr, nullptr) == ST_OK);
    for (int family = 0; family < 2; ++family) {
      assert(st_add_family(session_, buckets.data(), 2, &made) == ST_OK);
      assert(st_set_runner(session_, made, ST_ANY, busy, nullptr) == ST_OK);
      assert(st_set_latency(session_, made, 0, 4, 300'000) == ST_OK);
      st_tenant_options with = ST_TENANT_OPTIONS_INIT;
      with.queue_limit = 2;
      assert(st_add_tenant(session_, made, &with, &made) == ST_OK);
    }
  }

  int call() {
    switch (below(7)) {
      case 0:
        return opening();
      case 1:
        return set_up();
      case 2:
        return tenants();
      case 3:
        return facts();
      default:
        return requests();
    }
  }

  int opening() {
    st_options options = ST_OPTIONS_INIT;
    const std::array<const char*, 6> words = {"cpu", "cuda:", "fake:none", "", nullptr, "cuda:-1"};
    options.policy = words[below(6)];
    options.capacity = number<std::uint32_t>();
    sized(options);
    st_session opened = 0;
    const int status = st_open(words[below(6)], maybe(&options), maybe(&opened));
    if (status != ST_OK) return status;
    if (rarely()) std::swap(session_, opened);
    return rarely() ? st_close(opened, 0, number<std::int64_t>()) : st_free(opened);
  }

  int set_up() {
    const std::array<std::uint32_t, 4> list = {number<std::uint32_t>(), 1, 2,
                                               number<std::uint32_t>()};
    st_lane_options lane_options = ST_LANE_OPTIONS_INIT;
    lane_options.priority = number<std::int32_t>();
    sized(lane_options);
    std::uint32_t made = 0;
    switch (below(4)) {
      case 0:
        if (lanes_ > 24) return ST_OK;  // each is a thread
        ++lanes_;
        return st_add_lane(session(), maybe(list.data()), count(), maybe(&lane_options),
                           maybe(&made));
      case 1:
        return st_add_family(session(), maybe(list.data() + below(2)), below(4), maybe(&made));
      case 2:
        return st_set_runner(session(), number<std::uint32_t>(), number<std::uint32_t>(),
                             rarely() ? nullptr : &busy, nullptr);
      default:
        return st_set_latency(session(), number<std::uint32_t>(), number<std::uint32_t>(),
                              number<std::uint32_t>(), number<std::int64_t>());
    }
  }

  int tenants() {
    const std::array<double, 4> weights = {real(), 1, real(), 2};
    st_tenant_options options = ST_TENANT_OPTIONS_INIT;
    if (rarely()) options.weight = real();
    if (rarely()) options.slo_ns = number<std::int64_t>();
    if (rarely()) options.lane = number<std::uint32_t>();
    options.priority = number<std::int32_t>();
    options.queue_limit = number<std::uint32_t>();
    options.lane_weights = maybe(weights.data());
    options.lane_weight_count = count();
    sized(options);
    const std::array<st_turn, 4> turns = {{{0, 1}, {number<std::uint32_t>(), 1}, {1, 0}, {0, 2}}};
    std::uint32_t made = 0;
    switch (below(8)) {
      case 0:
        return st_remove_tenant(session(), number<std::uint32_t>());
      case 1:
        return st_set_duty(session(), number<std::uint32_t>(), maybe(turns.data()), count());
      case 2:
        return st_set_routes(session(), number<std::uint32_t>(), number<std::uint32_t>(),
                             maybe(weights.data()), count(), number<std::int32_t>());
      case 3:
        return st_close_lane(session(), number<std::uint32_t>());
      default:
        return st_add_tenant(session(), below(3), maybe(&options), maybe(&made));
    }
  }

  int facts() {
    std::array<std::uint32_t, 4> out{};
    void* stream = nullptr;
    st_report report{};
    report.size = sizeof report;
    sized(report);
    switch (below(4)) {
      case 0:
        return st_units(session(), maybe(out.data()), count(), maybe(&out[0]));
      case 1:
        return st_lane_units(session(), number<std::uint32_t>(), maybe(&out[0]));
      case 2:
        return st_lane_stream(session(), number<std::uint32_t>(), maybe(&stream));
      default:
        return st_read_report(session(), number<std::uint32_t>(), maybe(&report));
    }
  }

  int requests() {
    st_submission submission = ST_SUBMISSION_INIT;
    if (rarely()) submission.samples = number<std::uint16_t>();
    if (rarely()) submission.deadline_ns = number<std::int64_t>();
    if (rarely()) submission.callback = [](void*, const st_result*) {};
    submission.priority = number<std::int16_t>();
    if (rarely()) submission.priority = ST_TENANTS;
    sized(submission);
    st_result result = ST_RESULT_INIT;
    sized(result);
    st_request made = 0;
    switch (below(8)) {
      case 0:
        return st_wait(session(), request(), below(2) * 1000, maybe(&result));
      case 1:
        return st_poll(session(), request(), maybe(&result));
      case 2:
        return st_cancel(session(), request());
      case 3:
        return st_forget(session(), request());
      default:
        const int status =
            st_submit(session(), number<std::uint32_t>(), maybe(&submission), maybe(&made));
        if (status == ST_OK) requests_.push_back(made);
        if (requests_.size() > 64) requests_.erase(requests_.begin());
        return status;
    }
  }

  st::sim::Random random_;
  st_session session_ = 0;
  std::vector<st_request> requests_;
  int lanes_ = 0;
  std::array<std::uint64_t, ST_INTERNAL + 1> seen_{};
};

}  // namespace

int main() {
  assert(st_api_version() == ST_API_VERSION && st_version()[0] != '\0');
  for (const int status : {-1, 1000, std::numeric_limits<int>::min()}) {
    assert(std::string(st_error_text(status)) == "an unknown status");
  }
  std::array<std::uint64_t, ST_INTERNAL + 1> seen{};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Fuzz fuzz(seed);
    for (int i = 0; i < 400; ++i) fuzz.step();
    for (std::size_t i = 0; i < seen.size(); ++i) seen[i] += fuzz.seen()[i];
  }
  for (const int status : {ST_OK, ST_INVALID, ST_STALE, ST_QUEUE_FULL, ST_TOO_LATE}) {
    if (seen[static_cast<std::size_t>(status)] > 0) continue;
    std::fprintf(stderr, "never seen: %s\n", st_error_text(status));
    return 1;
  }
  std::printf("capi: fuzzed; %llu of the calls succeeded\n",
              static_cast<unsigned long long>(seen[ST_OK]));
}
