// session.h: what a st_session handle names: an executor, its device, and its requests' results.
//
// Thread safety: everything from any thread. close() not from a runner or callback.
//
// Invariants:
// 1. An accepted request is in `requests_` until its callback begins or its result is taken or
//    forgotten; it lives until it has ended, whoever has let go of it.
// 2. close() returns after the last callback has returned.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "capi/spacetime.h"
#include "rt/executor.h"
#include "rt/notifier.h"

namespace st::capi {

class Session;

// A request between its submission and its answer.
class PendingRequest final : public rt::Ending,
                             public rt::Notifier::Call,
                             public std::enable_shared_from_this<PendingRequest> {
 public:
  PendingRequest(Session& session, st_request handle, const st_submission& submission)
      : session_(session),
        handle_(handle),
        user_(submission.user),
        callback_(submission.callback) {}

  void accepted_soon() { self_ = shared_from_this(); }  // before it is submitted
  void refused() { self_.reset(); }
  void ended(const rt::Completion& end) override;
  void run() noexcept override;  // its callback

  bool wait(rt::TimeNs until) {
    return done_.await([this] { return over_.load(std::memory_order_acquire); }, until);
  }
  bool calls_back() const { return callback_ != nullptr; }
  st_result result() const;  // once it has ended

  std::atomic<rt::RequestId> native{0};  // the executor's name of it; 0 until it is accepted

 private:
  Session& session_;  // outlives what is in flight
  const st_request handle_;
  void* const user_;
  const st_callback callback_;
  rt::Completion end_;
  std::atomic<bool> over_{false};  // publishes end_
  rt::Signal done_;
  std::shared_ptr<PendingRequest> self_;  // while the executor or the notifier has it
};

class Session {
 public:
  Session(const char* device, const st_options& options);

  rt::Executor& executor() const { return *executor_; }
  rt::Backend& backend() const { return *backend_; }
  rt::Notifier& notifier() { return notifier_; }

  st_tenant add_tenant(const sched::TenantSpec& spec, rt::TimeNs slo_ns);
  st_request submit(st_tenant tenant, const st_submission& submission, bool wanted);
  std::shared_ptr<PendingRequest> find(st_request handle);
  bool take(st_request handle);  // false: somebody else has
  bool close(bool drain, rt::TimeNs until);

 private:
  rt::TimeNs deadline(st_tenant tenant, rt::TimeNs given_ns);

  std::shared_ptr<rt::Backend> backend_;
  rt::Notifier notifier_;
  std::mutex mutex_;  // guards what follows
  std::unordered_map<st_request, std::shared_ptr<PendingRequest>> requests_;
  std::vector<rt::TimeNs> slos_;  // by tenant
  st_request next_ = 1;
  std::shared_ptr<rt::Executor> executor_;  // last: closed first
};

// A runner with its context, behind a function that lets nothing be thrown into the executor.
rt::Native guarded_runner(st_native_function function, void* context);
bool in_runner();  // called from a runner

}  // namespace st::capi
