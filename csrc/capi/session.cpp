#include "capi/session.h"

#include <charconv>
#include <string>
#include <string_view>

#include "capi/error.h"
#include "cpu/cpu.h"
#include "cuda/partition.h"
#include "fake/fake_driver.h"
#include "sched/presets.h"

namespace st::capi {
namespace {

static_assert(static_cast<int>(rt::Outcome::kOk) == ST_DONE);
static_assert(static_cast<int>(rt::Outcome::kFailed) == ST_FAILED);
static_assert(static_cast<int>(rt::Outcome::kDeadline) == ST_DROPPED_DEADLINE);
static_assert(static_cast<int>(rt::Outcome::kQueueFull) == ST_DROPPED_FULL);
static_assert(static_cast<int>(rt::Outcome::kCancelled) == ST_DROPPED_CANCELLED);
static_assert(static_cast<int>(rt::Outcome::kRemoved) == ST_DROPPED_REMOVED);
static_assert(static_cast<int>(rt::Outcome::kClosed) == ST_DROPPED_CLOSED);
static_assert(rt::kOutcomes == ST_OUTCOMES);
static_assert(rt::kNoFunction == ST_CODE_NO_RUNNER && rt::kLaneFailed == ST_CODE_LANE_LOST);
static_assert(sched::kNone == ST_ANY && rt::kNever == ST_NEVER);

std::shared_ptr<rt::Backend> open_device(std::string_view device) {
  if (device == "cpu") return std::make_shared<cpu::Cpu>();
  std::shared_ptr<cuda::Driver> driver;
  int ordinal = 0;
  if (device.starts_with("cuda:")) {
    const std::string_view digits = device.substr(5);
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, ordinal);
    require(error == std::errc() && stop == end && ordinal >= 0,
            "device: cuda:N needs the device's number");
    driver = cuda::load();
  } else if (device.starts_with("fake:")) {
    fake::FakeOptions options;
    options.device = device.substr(5);
    driver = std::make_shared<fake::FakeDriver>(options);
  } else {
    throw Refused(ST_INVALID,
                  "device: '" + std::string(device) + "' is not cpu, cuda:N or fake:<model>");
  }
  return std::make_shared<cuda::SmBackend>(cuda::Device::open(std::move(driver), ordinal));
}

struct GuardedRunner {
  st_native_function function;
  void* context;
};

thread_local bool running = false;

int run_guarded(void* context, const st_launch* launch) noexcept {
  const GuardedRunner& runner = *static_cast<const GuardedRunner*>(context);
  const bool outer = running;  // a runner of an inline session may submit, and so run another
  running = true;
  int code = ST_CODE_THROWN;
  try {
    code = runner.function(runner.context, launch);
  } catch (...) {
  }
  running = outer;
  return code;
}

}  // namespace

rt::Native guarded_runner(st_native_function function, void* context) {
  auto runner = std::make_shared<GuardedRunner>(GuardedRunner{function, context});
  return {{run_guarded, runner.get()}, runner};
}

bool in_runner() { return running; }

// ---- a request ------------------------------------------------------------------------------

void PendingRequest::ended(const rt::Completion& end) {
  end_ = end;
  const std::shared_ptr<PendingRequest> keep = callback_ == nullptr ? std::move(self_) : nullptr;
  over_.store(true, std::memory_order_release);
  done_.notify();
  if (callback_ != nullptr) session_.notifier().push(*this);
}

void PendingRequest::run() noexcept {
  const std::shared_ptr<PendingRequest> keep = std::move(self_);
  session_.take(handle_);
  const st_result seen = result();
  callback_(user_, &seen);
}

st_result PendingRequest::result() const {
  st_result out = ST_RESULT_INIT;
  out.request = handle_;
  out.user = user_;
  out.outcome = static_cast<std::int32_t>(end_.outcome);
  out.code = end_.code;
  out.latency_ns = end_.finish_ns - end_.arrival_ns;
  out.wait_ns = end_.lane == sched::kNone ? out.latency_ns : end_.start_ns - end_.arrival_ns;
  out.lane = end_.lane;
  out.launch_samples = end_.samples;
  out.launch_tenants = end_.tenants;
  return out;
}

// ---- the session ----------------------------------------------------------------------------

namespace {

sched::Policy policy_of(const st_options& options) {
  sched::Policy policy = sched::preset(options.policy);
  policy.age_ns = options.age_ns;
  return policy;
}

}  // namespace

Session::Session(const char* device, const st_options& options)
    : backend_(open_device(device)),
      executor_(rt::Executor::open({.policy = policy_of(options), .capacity = options.capacity},
                                   backend_)) {}

st_tenant Session::add_tenant(const sched::TenantSpec& spec, rt::TimeNs slo_ns) {
  const st_tenant tenant = executor_->add_tenant(spec);
  const std::lock_guard lock(mutex_);
  if (slos_.size() <= tenant) slos_.resize(tenant + 1, rt::kNever);
  slos_[tenant] = slo_ns;
  return tenant;
}

rt::TimeNs Session::deadline(st_tenant tenant, rt::TimeNs given_ns) {
  if (given_ns == 0) given_ns = tenant < slos_.size() ? slos_[tenant] : rt::kNever;
  return given_ns == rt::kNever ? rt::kNever : rt::after(given_ns);
}

st_request Session::submit(st_tenant tenant, const st_submission& submission, bool wanted) {
  std::shared_ptr<PendingRequest> request;
  rt::Submission made{.tenant = tenant,
                      .samples = submission.samples,
                      .priority = submission.priority,
                      .token = reinterpret_cast<std::uintptr_t>(submission.user)};
  st_request handle = 0;
  {
    const std::lock_guard lock(mutex_);
    made.deadline = deadline(tenant, submission.deadline_ns);
    handle = next_++;
    request = std::make_shared<PendingRequest>(*this, handle, submission);
    if (wanted || request->calls_back()) requests_.emplace(handle, request);
  }
  request->accepted_soon();
  made.ending = request.get();
  rt::RequestId native = 0;
  rt::Refusal refusal = rt::Refusal::kClosed;
  try {
    refusal = executor_->submit(made, native);
  } catch (...) {
    take(handle);
    request->refused();
    throw;
  }
  if (refusal == rt::Refusal::kNone) {
    request->native.store(native, std::memory_order_release);
    return handle;
  }
  take(handle);
  request->refused();
  const std::string who = "tenant " + std::to_string(tenant) + ": ";
  switch (refusal) {
    case rt::Refusal::kQueueFull:
      throw Refused(ST_QUEUE_FULL, who + "queue_limit requests are waiting already");
    case rt::Refusal::kNoCapacity:
      throw Refused(ST_QUEUE_FULL, who + "capacity requests are in flight already");
    case rt::Refusal::kRemoved:
      throw Refused(ST_REMOVED, who + "was removed");
    default:
      throw Refused(ST_CLOSED, "the session is closed");
  }
}

std::shared_ptr<PendingRequest> Session::find(st_request handle) {
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(handle);
  if (found == requests_.end()) {
    throw Refused(ST_STALE, "request: " + std::to_string(handle) +
                                " does not exist, or its result was taken");
  }
  return found->second;
}

bool Session::take(st_request handle) {
  std::shared_ptr<PendingRequest> dropped;  // destroyed after the lock
  const std::lock_guard lock(mutex_);
  const auto found = requests_.find(handle);
  if (found == requests_.end()) return false;
  dropped = std::move(found->second);
  requests_.erase(found);
  return true;
}

bool Session::close(bool drain, rt::TimeNs until) {
  // The executor calls back while it waits only if it is given something to call.
  const bool clean = executor_->close(drain, until, [] {});
  notifier_.stop();
  return clean;
}

}  // namespace st::capi
