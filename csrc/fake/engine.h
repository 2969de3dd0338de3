// engine.h: the fake device's work and its virtual time. Work is a graph of tasks: a task starts
// when those before it are done and it has been submitted. Kernels share the SMs they meet on and,
// if asked for, the memory's bandwidth; everything else takes a fixed time.
//
// Thread safety: none; the driver's mutex guards it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fake/data_sheets.h"

namespace st::fake {

struct Task {
  // What it is; set by whoever adds it.
  TimeNs delay_ns = 0;  // after its start: all of its time, or what precedes a kernel's work
  double flops = 0, bytes = 0;  // of a kernel
  SmSet sms;                    // empty: not a kernel
  std::function<int()> effect;  // what it does when it ends, and the driver's code for it
  std::function<void()> host;   // a host function; it takes no virtual time

  // What happened; set by the engine.
  bool done = false;
  TimeNs done_ns = 0;

 private:
  friend class Engine;
  std::uint64_t id_ = 0;
  TimeNs submitted_ns_ = 0;
  TimeNs due_ns_ = 0;  // when its delay is over, or its work at the present rate
  bool working_ = false;
  double left_ = 1;  // of the work, and how much of it is done in a ns
  double rate_ = 0;
  unsigned before_ = 0;
  std::vector<Task*> next_;
};
using TaskRef = std::shared_ptr<Task>;

class Engine {
 public:
  Engine(const DataSheet& sheet, bool interference) : sheet_(sheet), interference_(interference) {}

  TaskRef add(Task task, std::span<const TaskRef> after, TimeNs submitted_ns);

  TaskRef fence(TimeNs submitted_ns);  // after all that is under way

  // advance: simulates up to `to`, or until a host function is due, which it returns: run it and
  // call ended(); nothing moves before that.
  TaskRef advance(TimeNs to);
  void ended(const TaskRef& host);
  // next: when something happens next; nothing while no task is under way.
  std::optional<TimeNs> next() const;
  // abort: every task ends now, without its effect.
  void abort();
  // poison: the next work that ends fails with this code; what follows it is aborted.
  void poison(int code) { poison_ = code; }
  int failure() const { return failure_; }  // of the first work that failed, or 0
  void forgive() { poison_ = failure_ = 0; }

  std::uint64_t issued() const { return issued_; }
  std::uint64_t oldest() const { return tasks_.empty() ? issued_ + 1 : tasks_.begin()->first; }
  std::size_t unfinished() const { return tasks_.size(); }
  TimeNs now_ns() const { return now_ns_; }
  TimeNs busy_sm_ns() const { return busy_sm_ns_ + busy_sms_ * (now_ns_ - shared_ns_); }

 private:
  using Map = std::map<std::uint64_t, TaskRef>;  // by age

  void start(Task& task);
  void due(Task& task);
  void finish(Task& task);
  void share();  // the rates of all kernels from now on
  void share_bandwidth(const std::vector<Task*>& kernels);

  const DataSheet sheet_;
  const bool interference_;
  Map tasks_;
  std::vector<Task*> active_;  // started, in that order
  std::vector<Task*> hosts_;   // host functions that are due
  bool waiting_ = false;       // for a host function that advance() returned
  bool stale_ = false;         // the set of working kernels changed since share()
  std::uint64_t issued_ = 0;
  TimeNs now_ns_ = 0;
  TimeNs shared_ns_ = 0;
  TimeNs busy_sms_ = 0;  // since shared_ns_
  TimeNs busy_sm_ns_ = 0;
  int poison_ = 0;
  int failure_ = 0;
};

}  // namespace st::fake
