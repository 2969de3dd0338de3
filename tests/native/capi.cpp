// capi.cpp: the C API as a server in C would use it, and as a careless one would.
#undef NDEBUG
#include <atomic>
#include <cassert>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "capi/spacetime.h"

namespace {

constexpr std::int64_t kSoon = 20'000'000'000;  // a test that waits this long has failed

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (const int status = (call); status != ST_OK) {                                              \
      std::fprintf(stderr, "line %d: %s: %s\n", __LINE__, st_error_text(status), st_last_error()); \
      std::abort();                                                                                \
    }                                                                                              \
  } while (false)

int nothing(void*, const st_launch*) { return 0; }

// Holds the lane until it is opened.
struct Gate {
  std::atomic<int> open{0};
  std::atomic<int> entered{0};
  static int run(void* context, const st_launch*) {
    Gate& gate = *static_cast<Gate*>(context);
    gate.entered.fetch_add(1);
    gate.entered.notify_all();
    gate.open.wait(0);
    return 0;
  }
  void let() {
    open = 1;
    open.notify_all();
  }
};

struct Rig {
  st_session session = 0;
  st_family family = 0;
  st_tenant tenants[4] = {};

  explicit Rig(st_native_function runner, void* context = nullptr, std::uint32_t queue_limit = 64,
               const char* device = "cpu", st_options options = ST_OPTIONS_INIT) {
    options.capacity = 256;
    OK(st_open(device, &options, &session));
    std::uint32_t count = 0;
    OK(st_units(session, nullptr, 0, &count));
    std::vector<std::uint32_t> units(count);
    OK(st_units(session, units.data(), count, &count));
    for (std::uint32_t i = 0; i < 2; ++i) {
      OK(st_add_lane(session, &units[i % count], 1, nullptr, nullptr));
    }
    const std::uint32_t buckets[] = {1, 4, 16};
    OK(st_add_family(session, buckets, 3, &family));
    OK(st_set_runner(session, family, ST_ANY, runner, context));
    for (st_tenant& tenant : tenants) {
      st_tenant_options with = ST_TENANT_OPTIONS_INIT;
      with.queue_limit = queue_limit;
      OK(st_add_tenant(session, family, &with, &tenant));
    }
  }
  ~Rig() {
    const int status = st_free(session);
    assert(status == ST_OK || status == ST_STALE);
  }
  st_report report(st_tenant tenant = ST_ANY) const {
    st_report report{};
    report.size = sizeof report;
    OK(st_read_report(session, tenant, &report));
    return report;
  }
};

void a_request_comes_back_with_what_happened() {
  for (const char* device : {"cpu", "fake:h200"}) {
    struct Seen {
      std::uint64_t user = 0;
      std::uint32_t samples = 0;
    } seen;
    Rig rig(
        [](void* context, const st_launch* launch) {
          *static_cast<Seen*>(context) = {launch->tokens[0], launch->request_samples[0]};
          return launch->request_samples[0] == 3 ? 7 : 0;
        },
        &seen, 64, device);
    int mine = 0;
    st_submission submission = ST_SUBMISSION_INIT;
    submission.user = &mine;
    submission.samples = 2;
    st_request request = 0;
    OK(st_submit(rig.session, rig.tenants[1], &submission, &request));
    st_result result = ST_RESULT_INIT;
    OK(st_wait(rig.session, request, kSoon, &result));
    assert(result.outcome == ST_DONE && result.user == &mine && result.request == request);
    assert(result.launch_samples == 2 && result.launch_tenants == 1 && result.lane < 2);
    assert(result.latency_ns > 0 && result.wait_ns <= result.latency_ns);
    assert(seen.user == reinterpret_cast<std::uintptr_t>(&mine) && seen.samples == 2);
    assert(st_poll(rig.session, request, &result) == ST_STALE);
    submission.samples = 3;
    OK(st_submit(rig.session, rig.tenants[1], &submission, &request));
    OK(st_wait(rig.session, request, kSoon, &result));
    assert(result.outcome == ST_FAILED && result.code == 7);
    assert(rig.report().completed == 1 && rig.report(rig.tenants[1]).failed == 1);
    std::uint32_t units = 0;
    OK(st_lane_units(rig.session, 0, &units));
    assert(units >= 1);
    void* stream = nullptr;
    const bool cores = std::strcmp(device, "cpu") == 0;
    assert(st_lane_stream(rig.session, 0, &stream) == (cores ? ST_UNSUPPORTED : ST_OK));
    assert((stream == nullptr) == cores);
  }
}

void what_a_runner_must_not_do_is_an_error() {
  struct Inside {
    st_session session = 0;
    std::atomic<int> closed{-1}, freed{-1};
  } inside;
  Rig rig(
      [](void* context, const st_launch* launch) -> int {
        Inside& in = *static_cast<Inside*>(context);
        in.closed = st_close(in.session, 1, ST_NEVER);
        in.freed = st_free(in.session);
        if (launch->samples == 2) throw std::runtime_error("thrown into C");
        return 0;
      },
      &inside);
  inside.session = rig.session;
  st_submission submission = ST_SUBMISSION_INIT;
  submission.samples = 2;
  st_request request = 0;
  OK(st_submit(rig.session, rig.tenants[0], &submission, &request));
  st_result result = ST_RESULT_INIT;
  OK(st_wait(rig.session, request, kSoon, &result));
  assert(result.outcome == ST_FAILED && result.code == ST_CODE_THROWN);
  assert(inside.closed == ST_INVALID && inside.freed == ST_INVALID);
  const std::uint32_t one = 1;
  st_family bare = 0;
  st_tenant tenant = 0;
  OK(st_add_family(rig.session, &one, 1, &bare));
  OK(st_add_tenant(rig.session, bare, nullptr, &tenant));
  OK(st_submit(rig.session, tenant, nullptr, &request));
  OK(st_wait(rig.session, request, kSoon, &result));
  assert(result.outcome == ST_FAILED && result.code == ST_CODE_NO_RUNNER);
}

void deadlines_and_cancels_are_answered_while_lanes_are_busy() {
  Gate gate;
  Rig rig(Gate::run, &gate, 3);
  st_request held[2], late = 0, gone = 0, full = 0;
  for (int i = 0; i < 2; ++i) {  // one for each lane; an idle lane may fuse both
    OK(st_submit(rig.session, rig.tenants[0], nullptr, &held[i]));
    while (gate.entered <= i) gate.entered.wait(i);
  }
  st_submission submission = ST_SUBMISSION_INIT;
  submission.deadline_ns = 2'000'000;
  OK(st_submit(rig.session, rig.tenants[1], &submission, &late));
  OK(st_submit(rig.session, rig.tenants[1], nullptr, &gone));
  OK(st_submit(rig.session, rig.tenants[1], nullptr, nullptr));
  st_result result = ST_RESULT_INIT;
  OK(st_wait(rig.session, late, kSoon, &result));
  // The deadline counts from the call, the latency from when the request is queued, a little later.
  assert(result.outcome == ST_DROPPED_DEADLINE && result.latency_ns >= 1'000'000);
  assert(result.lane == ST_ANY && result.wait_ns == result.latency_ns);
  assert(st_poll(rig.session, gone, &result) == ST_PENDING);
  OK(st_submit(rig.session, rig.tenants[1], nullptr, nullptr));
  assert(st_submit(rig.session, rig.tenants[1], nullptr, &full) == ST_QUEUE_FULL);
  assert(std::strstr(st_last_error(), "queue_limit") != nullptr);
  OK(st_cancel(rig.session, gone));
  OK(st_wait(rig.session, gone, kSoon, &result));
  assert(result.outcome == ST_DROPPED_CANCELLED);
  assert(st_cancel(rig.session, held[0]) == ST_TOO_LATE);
  OK(st_remove_tenant(rig.session, rig.tenants[1]));
  assert(st_submit(rig.session, rig.tenants[1], nullptr, &full) == ST_REMOVED);
  OK(st_forget(rig.session, held[1]));
  assert(st_wait(rig.session, held[1], 0, &result) == ST_STALE);
  gate.let();
  OK(st_wait(rig.session, held[0], kSoon, nullptr));
  OK(st_close(rig.session, 1, kSoon));
  const st_report report = rig.report();
  assert(report.offered == 6 && report.completed == 2 && report.refused == 1);
  assert(report.dropped[ST_DROPPED_DEADLINE] == 1 && report.dropped[ST_DROPPED_CANCELLED] == 1);
  assert(report.dropped[ST_DROPPED_REMOVED] == 2 && report.in_flight == 0);
}

// Threads submit, wait, poll, cancel and forget; one removes a tenant, one closes.
void every_accepted_request_is_answered_once(bool drain) {
  constexpr int kEach = 2'000, kThreads = 3;
  Rig rig(nothing, nullptr, 16);
  static std::vector<std::atomic<int>> answers(kEach * kThreads);
  for (std::atomic<int>& answer : answers) answer = 0;
  std::vector<int> accepted(answers.size());
  const st_callback count = [](void* user, const st_result* result) {
    assert(result->user == user && result->size == sizeof(st_result));
    static_cast<std::atomic<int>*>(user)->fetch_add(1);
  };
  const auto submitter = [&](int thread) {
    for (int i = thread * kEach; i < (thread + 1) * kEach; ++i) {
      st_submission submission = ST_SUBMISSION_INIT;
      submission.user = &answers[i];
      submission.deadline_ns = i % 7 == 0 ? 50'000 : 0;
      submission.callback = i % 3 == 0 ? count : nullptr;
      st_request request = 0;
      const int status = st_submit(rig.session, rig.tenants[i % 4], &submission, &request);
      accepted[i] = status == ST_OK;
      assert(status <= ST_REMOVED && status != ST_INVALID && status != ST_STALE);
      if (status != ST_OK) continue;
      if (i % 11 == 0) st_cancel(rig.session, request);
      if (i == kEach / 2) OK(st_remove_tenant(rig.session, rig.tenants[3]));
      if (i % 3 == 0) continue;
      if (i % 13 == 0) {
        OK(st_forget(rig.session, request));
        answers[i].fetch_add(1);
        continue;
      }
      st_result result = ST_RESULT_INIT;
      while (i % 5 == 0 && st_poll(rig.session, request, nullptr) == ST_PENDING) {
        std::this_thread::yield();
      }
      if (i % 5 != 0) OK(st_wait(rig.session, request, kSoon, &result));
      answers[i].fetch_add(1);
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(submitter, thread);
  if (!drain) OK(st_close(rig.session, 0, kSoon));
  for (std::thread& thread : threads) thread.join();
  OK(st_close(rig.session, 1, kSoon));
  std::uint64_t offered = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    assert(answers[i] == accepted[i]);
    offered += accepted[i];
  }
  const st_report report = rig.report();
  std::uint64_t ended = report.completed + report.failed;
  for (const std::uint64_t dropped : report.dropped) ended += dropped;
  assert(report.offered == offered && ended == offered && report.in_flight == 0);
  assert(st_submit(rig.session, rig.tenants[0], nullptr, nullptr) == ST_CLOSED);
}

// A callback that submits the next, until there are enough; closing from it is refused.
void callbacks_may_submit() {
  struct Chain {
    st_session session;
    st_tenant tenant;
    int left = 500;
    std::atomic<int> done{0};
    int closed = -1;
  };
  Rig rig(nothing);
  Chain chain{rig.session, rig.tenants[0]};
  static const st_callback next = [](void* user, const st_result* result) {
    Chain& chain = *static_cast<Chain*>(user);
    assert(result->outcome == ST_DONE);
    chain.closed = st_close(chain.session, 1, 0);
    if (--chain.left > 0) {
      st_submission submission = ST_SUBMISSION_INIT;
      submission.user = user;
      submission.callback = next;
      OK(st_submit(chain.session, chain.tenant, &submission, nullptr));
      return;
    }
    chain.done = 1;
    chain.done.notify_all();
  };
  st_submission submission = ST_SUBMISSION_INIT;
  submission.user = &chain;
  submission.callback = next;
  st_request request = 0;
  OK(st_submit(rig.session, rig.tenants[0], &submission, &request));
  const int waited = st_wait(rig.session, request, kSoon, nullptr);
  assert(waited == ST_INVALID || waited == ST_STALE);
  chain.done.wait(0);
  OK(st_close(rig.session, 1, kSoon));
  assert(chain.closed == ST_INVALID && rig.report().completed == 500);
}

// What waits moves to the other lane with its route; then its lane can be closed.
void routes_change_while_requests_wait() {
  Gate gate;
  st_options options = ST_OPTIONS_INIT;
  options.policy = "space-only";  // pinned, one request a launch
  Rig rig(Gate::run, &gate, 64, "cpu", options);
  st_request held = 0, waiting = 0;
  OK(st_submit(rig.session, rig.tenants[0], nullptr, &held));
  while (gate.entered < 1) gate.entered.wait(0);
  OK(st_submit(rig.session, rig.tenants[0], nullptr, &waiting));
  assert(st_close_lane(rig.session, 0) == ST_INVALID);
  for (const st_tenant tenant : rig.tenants) {
    OK(st_set_routes(rig.session, tenant, 1, nullptr, 0, 1));
  }
  while (gate.entered < 2) gate.entered.wait(1);
  gate.let();
  st_result result = ST_RESULT_INIT;
  OK(st_wait(rig.session, waiting, kSoon, &result));
  assert(result.outcome == ST_DONE && result.lane == 1);
  OK(st_wait(rig.session, held, kSoon, &result));
  assert(result.lane == 0);
  OK(st_close_lane(rig.session, 0));
  assert(st_set_routes(rig.session, rig.tenants[0], 0, nullptr, 0, 0) == ST_INVALID);
}

void freeing_ends_what_waits() {
  Gate gate;
  st_session session = 0;
  {
    Rig rig(Gate::run, &gate);
    session = rig.session;
    st_request held = 0, waiting = 0;
    for (int i = 0; i < 2; ++i) {
      OK(st_submit(session, rig.tenants[0], nullptr, &held));
      while (gate.entered <= i) gate.entered.wait(i);
    }
    OK(st_submit(session, rig.tenants[0], nullptr, &waiting));
    std::thread waiter([&] {
      st_result result = ST_RESULT_INIT;
      const int status = st_wait(session, waiting, kSoon, &result);
      assert(status == ST_STALE || status == ST_OK);
      gate.let();
    });
    OK(st_cancel(session, waiting));
    OK(st_free(session));
    waiter.join();
  }
  assert(st_free(session) == ST_STALE && st_close(session, 1, 0) == ST_STALE);
  assert(std::strstr(st_last_error(), "does not exist") != nullptr);
}

}  // namespace

int main() {
  a_request_comes_back_with_what_happened();
  what_a_runner_must_not_do_is_an_error();
  deadlines_and_cancels_are_answered_while_lanes_are_busy();
  every_accepted_request_is_answered_once(true);
  every_accepted_request_is_answered_once(false);
  callbacks_may_submit();
  routes_change_while_requests_wait();
  freeing_ends_what_waits();
  std::puts("capi: ok");
}
