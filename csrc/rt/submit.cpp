// submit.cpp: how requests enter the executor, or are refused.
#include <stdexcept>
#include <string>

#include "rt/executor.h"

namespace st::rt {
namespace {

constexpr std::uint32_t kChunk = 64;  // requests a bulk pushes before it lets events be run

}  // namespace

Refusal Executor::submit(const Submission& submission, RequestId& id) {
  const Refusal refusal = accept(submission, now_ns(), id);
  if (refusal == Refusal::kNone) pump();
  return refusal;
}

Refusal Executor::accept(const Submission& submission, TimeNs now, RequestId& id) {
  Tenant* tenant = tenants_.find(submission.tenant);
  if (tenant == nullptr) {
    throw std::out_of_range("tenant: " + std::to_string(submission.tenant) + " does not exist");
  }
  if (submission.samples == 0) throw std::invalid_argument("samples: must be at least 1");
  in_flight_.fetch_add(1, std::memory_order_seq_cst);  // invariant 4
  Refusal refusal = Refusal::kNone;
  std::uint32_t place = 0;
  if (!accepting_.load(std::memory_order_seq_cst)) {
    refusal = Refusal::kClosed;
  } else if (tenant->removed.load(std::memory_order_acquire)) {
    refusal = Refusal::kRemoved;
  } else {
    refusal = take_room(*tenant, place);
  }
  if (refusal != Refusal::kNone) {
    const bool full = refusal == Refusal::kQueueFull || refusal == Refusal::kNoCapacity;
    if (full) tenant->refused.fetch_add(1, std::memory_order_relaxed);
    retire(1);
    return refusal;
  }
  InFlight& request = pool_[place];
  id = make_id(place, ++request.generation);
  request.ticket = submission.ticket;
  request.ending = submission.ending;
  request.request = {.id = id,
                     .tenant = submission.tenant,
                     .samples = submission.samples,
                     .priority = submission.priority,
                     .arrival = now,
                     .deadline = submission.deadline};
  request.end = {.token = submission.token, .tenant = submission.tenant, .arrival_ns = now};
  // Never full: the ring has room for every place of the pool and an event of every lane.
  events_.try_push({.kind = Event::Kind::kArrive, .subject = place, .at = now});
  return Refusal::kNone;
}

Refusal Executor::take_room(Tenant& tenant, std::uint32_t& place) {
  std::uint32_t waiting = tenant.waiting.load(std::memory_order_relaxed);
  do {
    if (waiting >= tenant.limit) return Refusal::kQueueFull;
  } while (!tenant.waiting.compare_exchange_weak(waiting, waiting + 1, std::memory_order_relaxed));
  place = pool_.take();
  if (place != Pool<InFlight>::kEmpty) return Refusal::kNone;
  leave_room(tenant);
  return Refusal::kNoCapacity;
}

void Executor::leave_room(Tenant& tenant) {
  tenant.waiting.fetch_sub(1, std::memory_order_seq_cst);  // before make_room's look for waiters
}

void Executor::make_room() {
  if (room_waiters_.load(std::memory_order_seq_cst) > 0) room_.notify();
}

void Executor::wait_for_room(Tenant& tenant, TimeNs until) {
  const auto roomy = [&] {
    // Half the queue, so that a submitter is not woken for every single request.
    return !accepting_.load(std::memory_order_seq_cst) || tenant.removed.load() ||
           (tenant.waiting.load(std::memory_order_seq_cst) <= tenant.limit / 2 && !pool_.empty());
  };
  room_waiters_.fetch_add(1, std::memory_order_seq_cst);
  room_.await(roomy, until);
  room_waiters_.fetch_sub(1, std::memory_order_relaxed);
}

bool Executor::submit_some(Bulk& bulk, TimeNs until) {
  bulk.each.ticket = bulk.ticket.get();
  TimeNs now = now_ns();
  for (std::uint32_t pushed = 0; bulk.next < bulk.count;) {
    bulk.each.tenant = bulk.tenants[bulk.next % bulk.tenants.size()];
    bulk.each.deadline = bulk.deadline_ns >= kNever - now ? kNever : now + bulk.deadline_ns;
    RequestId id = 0;
    const Refusal refusal = accept(bulk.each, now, id);
    const bool full = refusal == Refusal::kQueueFull || refusal == Refusal::kNoCapacity;
    if (refusal == Refusal::kClosed) {
      refuse_rest(bulk, Outcome::kClosed);
    } else if (!full || !bulk.block) {
      if (full) bulk.ticket->settle(Outcome::kQueueFull, 1);
      if (refusal == Refusal::kRemoved) bulk.ticket->settle(Outcome::kRemoved, 1);
      ++bulk.next;
      ++bulk.each.token;
    }
    if (++pushed % kChunk != 0 && !(full && bulk.block)) continue;
    pump();
    if (full && bulk.block) wait_for_room(tenants_[bulk.each.tenant], until);
    now = now_ns();
    if (now >= until) return bulk.next == bulk.count;
  }
  pump();
  return true;
}

void Executor::refuse_rest(Bulk& bulk, Outcome outcome) {
  bulk.ticket->settle(outcome, bulk.count - bulk.next);
  bulk.next = bulk.count;
}

void Executor::retire(std::uint64_t requests) {
  const std::uint64_t before = in_flight_.fetch_sub(requests, std::memory_order_seq_cst);
  if (before == requests && !accepting_.load(std::memory_order_seq_cst)) idle_.notify();
}

}  // namespace st::rt
