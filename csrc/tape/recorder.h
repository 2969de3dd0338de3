// recorder.h: a scheduler that can keep what it was told and what it decided.
//
// The same calls as Scheduler, passed on; with a capacity they are also written to a tape (tape.h)
// that replay.h feeds to a fresh scheduler. Without one, a call costs one branch more. A call that
// throws is not recorded. A full tape records nothing more: its end says that it is not complete.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sched/scheduler.h"
#include "tape/tape.h"

namespace st::tape {

using namespace sched;  // whose calls and decisions a recording holds

class Recorder {
 public:
  explicit Recorder(const Policy& policy, std::size_t capacity = 0);  // bytes; 0 = off

  LaneId add_lane(const LaneSpec& spec);
  FamilyId add_family(const FamilySpec& spec);
  TenantId add_tenant(const TenantSpec& spec);
  void set_duty(LaneId lane, std::vector<DutyTurn> turns);
  void set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns);

  void arrive(const Request& request, TimeNs now, Actions& out) {
    arrive(std::span(&request, 1), now, out);
  }
  void arrive(std::span<const Request> requests, TimeNs now, Actions& out) {
    const Before before(out);
    scheduler_.arrive(requests, now, out);
    if (on()) note_arrive(requests, now, out, before);
  }
  bool cancel(RequestId request, TimeNs now, Actions& out) {
    const Before before(out);
    const bool found = scheduler_.cancel(request, now, out);
    if (on()) note(Mark::kCancel, request, now, out, before);
    return found;
  }
  void finish(LaunchId launch, TimeNs now, Actions& out) {
    const Before before(out);
    scheduler_.finish(launch, now, out);
    if (on()) note(Mark::kFinish, launch, now, out, before);
  }
  void wake(TimeNs now, Actions& out) {
    const Before before(out);
    scheduler_.wake(now, out);
    if (on()) note(Mark::kWake, 0, now, out, before);
  }
  void remove_tenant(TenantId tenant, TimeNs now, Actions& out) {
    const Before before(out);
    scheduler_.remove_tenant(tenant, now, out);
    if (on()) note(Mark::kRemove, tenant, now, out, before);
  }
  void drop_all(TimeNs now, Actions& out) {
    const Before before(out);
    scheduler_.drop_all(now, out);
    if (on()) note(Mark::kDropAll, 0, now, out, before);
  }

  void set_routes(TenantId tenant, Routes routes, bool move, TimeNs now, Actions& out);
  void set_batch(FamilyId family, LaneId lane, std::uint32_t samples, TimeNs now, Actions& out);
  void close_lane(LaneId lane);

  TimeNs next_wake() const { return scheduler_.next_wake(); }
  std::uint64_t waiting() const { return scheduler_.waiting(); }
  std::uint64_t running() const { return scheduler_.running(); }
  std::uint64_t load(LaneId lane) const { return scheduler_.load(lane); }
  bool straggling(TenantId tenant) const { return scheduler_.straggling(tenant); }
  TimeNs predicted_ns(FamilyId family, LaneId lane, std::uint32_t samples) const {
    return scheduler_.predicted_ns(family, lane, samples);
  }

  // recording: all so far, but for its checksum: seal() it. Empty when off.
  std::string recording() const;

 private:
  struct Before {  // how much of the actions was there before the call
    std::size_t starts;
    std::size_t drops;
    explicit Before(const Actions& out) : starts(out.starts.size()), drops(out.drops.size()) {}
  };

  bool on() const { return tape_ != nullptr; }
  bool room();
  void note_policy(const Policy& policy);
  void note_arrive(std::span<const Request> requests, TimeNs now, const Actions& out,
                   const Before& before);
  void note(Mark mark, std::uint64_t subject, TimeNs now, const Actions& out, const Before& before);
  void begin_event(Mark mark, TimeNs now);
  void note_decisions(const Actions& out, const Before& before);

  Scheduler scheduler_;
  std::unique_ptr<Tape> tape_;
  std::size_t capacity_;
  TimeNs last_ = 0;
  std::uint64_t events_ = 0;
  bool complete_ = true;
};

}  // namespace st::tape
