#include "tape/recorder.h"

namespace st::tape {
namespace {

// between: b - a of whatever instants a caller names; wraps instead of overflowing.
TimeNs between(TimeNs a, TimeNs b) {
  return static_cast<TimeNs>(static_cast<std::uint64_t>(b) - static_cast<std::uint64_t>(a));
}

}  // namespace

Recorder::Recorder(const Policy& policy, std::size_t capacity)
    : scheduler_(policy),
      tape_(capacity > 0 ? std::make_unique<Tape>() : nullptr),
      capacity_(capacity) {
  if (on()) note_policy(policy);
}

bool Recorder::room() {
  complete_ = complete_ && tape_->size() < capacity_;
  return complete_;
}

// ---- set-up ---------------------------------------------------------------------------------

void Recorder::note_policy(const Policy& policy) {
  tape_->mark(Mark::kPolicy);
  tape_->number(static_cast<std::uint64_t>(policy.route));
  tape_->number(static_cast<std::uint64_t>(policy.order));
  tape_->number(static_cast<std::uint64_t>(policy.batch));
  tape_->integer(policy.timeout_ns);
  tape_->number(policy.shed);
  tape_->number(policy.lend);
  tape_->number(policy.first_fit);
  tape_->real(policy.elsa_alpha);
  tape_->real(policy.elsa_beta);
  tape_->real(policy.straggler.multiple);
  tape_->real(policy.straggler.recovery);
  tape_->number(policy.straggler.patience);
  tape_->number(policy.straggler_lane);
  tape_->integer(policy.max_borrow_ns);
  tape_->integer(policy.age_ns);
}

LaneId Recorder::add_lane(const LaneSpec& spec) {
  const LaneId lane = scheduler_.add_lane(spec);
  if (!on() || !room()) return lane;
  tape_->mark(Mark::kLane);
  tape_->number(spec.units);
  tape_->number(spec.borrows);
  tape_->number(spec.pool);
  return lane;
}

FamilyId Recorder::add_family(const FamilySpec& spec) {
  const FamilyId family = scheduler_.add_family(spec);
  if (!on() || !room()) return family;
  tape_->mark(Mark::kFamily);
  tape_->number(spec.buckets.size());
  for (const std::uint32_t bucket : spec.buckets) tape_->number(bucket);
  return family;
}

TenantId Recorder::add_tenant(const TenantSpec& spec) {
  const TenantId tenant = scheduler_.add_tenant(spec);
  if (!on() || !room()) return tenant;
  tape_->mark(Mark::kTenant);
  tape_->number(spec.family);
  tape_->integer(spec.priority);
  tape_->real(spec.weight);
  tape_->number(spec.queue_limit);
  tape_->number(spec.lane);
  tape_->number(spec.lane_weights.size());
  for (const double weight : spec.lane_weights) tape_->real(weight);
  return tenant;
}

void Recorder::set_duty(LaneId lane, std::vector<DutyTurn> turns) {
  if (!on()) return scheduler_.set_duty(lane, std::move(turns));
  scheduler_.set_duty(lane, turns);
  if (!room()) return;
  tape_->mark(Mark::kDuty);
  tape_->number(lane);
  tape_->number(turns.size());
  for (const DutyTurn& turn : turns) {
    tape_->number(turn.tenant);
    tape_->number(turn.batch);
  }
}

void Recorder::set_latency(FamilyId family, LaneId lane, std::uint32_t bucket, TimeNs latency_ns) {
  scheduler_.set_latency(family, lane, bucket, latency_ns);
  if (!on() || !room()) return;
  tape_->mark(Mark::kLatency);
  tape_->number(family);
  tape_->number(lane);
  tape_->number(bucket);
  tape_->integer(latency_ns);
}

void Recorder::close_lane(LaneId lane) {
  scheduler_.close_lane(lane);
  if (!on() || !room()) return;
  tape_->mark(Mark::kClose);
  tape_->number(lane);
}

// ---- events and decisions -------------------------------------------------------------------

void Recorder::begin_event(Mark mark, TimeNs now) {
  tape_->mark(mark);
  tape_->number(static_cast<std::uint64_t>(now - last_));
  last_ = now;
  ++events_;
}

void Recorder::note_arrive(std::span<const Request> requests, TimeNs now, const Actions& out,
                           const Before& before) {
  if (!room()) return;
  begin_event(Mark::kArrive, now);
  tape_->number(requests.size());
  for (const Request& request : requests) {
    tape_->number(request.id);
    tape_->number(request.tenant);
    tape_->number(request.samples);
    tape_->number(request.priority != kTenants);
    if (request.priority != kTenants) tape_->integer(request.priority);
    tape_->integer(between(request.arrival, now));
    tape_->number(request.deadline != kNever);
    if (request.deadline != kNever) tape_->integer(between(now, request.deadline));
  }
  note_decisions(out, before);
}

void Recorder::note(Mark mark, std::uint64_t subject, TimeNs now, const Actions& out,
                    const Before& before) {
  if (!room()) return;
  begin_event(mark, now);
  if (mark != Mark::kWake && mark != Mark::kDropAll) tape_->number(subject);
  note_decisions(out, before);
}

void Recorder::set_routes(TenantId tenant, Routes routes, bool move, TimeNs now, Actions& out) {
  const Before before(out);
  if (!on()) return scheduler_.set_routes(tenant, std::move(routes), move, now, out);
  scheduler_.set_routes(tenant, routes, move, now, out);
  if (!room()) return;
  begin_event(Mark::kRoutes, now);
  tape_->number(tenant);
  tape_->number(routes.lane);
  tape_->number(routes.lane_weights.size());
  for (const double weight : routes.lane_weights) tape_->real(weight);
  tape_->number(move);
  note_decisions(out, before);
}

void Recorder::set_batch(FamilyId family, LaneId lane, std::uint32_t samples, TimeNs now,
                         Actions& out) {
  const Before before(out);
  scheduler_.set_batch(family, lane, samples, now, out);
  if (!on() || !room()) return;
  begin_event(Mark::kBatch, now);
  tape_->number(family);
  tape_->number(lane);
  tape_->number(samples);
  note_decisions(out, before);
}

void Recorder::note_decisions(const Actions& out, const Before& before) {
  for (std::size_t i = before.drops; i < out.drops.size(); ++i) {
    const Drop& drop = out.drops[i];
    tape_->mark(Mark::kDrop);
    tape_->number(drop.request);
    tape_->number(drop.tenant);
    tape_->number(static_cast<std::uint64_t>(drop.reason));
  }
  for (std::size_t i = before.starts; i < out.starts.size(); ++i) {
    const Start& start = out.starts[i];
    tape_->mark(Mark::kStart);
    tape_->number(start.launch);
    tape_->number(start.lane);
    tape_->number(start.family);
    tape_->number(start.samples);
    tape_->number(start.bucket);
    tape_->number(start.count);
    for (std::uint32_t r = 0; r < start.count; ++r) tape_->number(out.requests[start.first + r]);
  }
}

std::string Recorder::recording() const {
  if (!on()) return {};
  Tape end;
  end.mark(Mark::kEnd);
  end.number(events_);
  end.number(complete_);
  return std::string(kRecordingHead) + tape_->copy() + end.copy();
}

}  // namespace st::tape
