#include "rt/intake.h"

#include <stdexcept>
#include <string>

namespace st::rt {

Tenant& Intake::tenant(TenantId id) const {
  Tenant* tenant = tenants_.find(id);
  if (tenant == nullptr) {
    throw std::out_of_range("tenant: " + std::to_string(id) + " does not exist");
  }
  return *tenant;
}

Refusal Intake::accept(const Submission& submission, TimeNs now, RequestId& id) {
  Tenant& tenant = this->tenant(submission.tenant);
  if (submission.samples == 0) throw std::invalid_argument("samples: must be at least 1");
  in_flight_.fetch_add(1, std::memory_order_seq_cst);  // invariant 1
  Refusal refusal = Refusal::kNone;
  std::uint32_t place = 0;
  if (!accepting()) {
    refusal = Refusal::kClosed;
  } else if (tenant.removed.load(std::memory_order_acquire)) {
    refusal = Refusal::kRemoved;
  } else {
    refusal = take_room(tenant, place);
  }
  if (refusal != Refusal::kNone) {
    if (wants_room(refusal)) tenant.refused.fetch_add(1, std::memory_order_relaxed);
    retire(1);
    return refusal;
  }
  InFlight& request = requests_[place];
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
  return Refusal::kNone;
}

Refusal Intake::take_room(Tenant& tenant, std::uint32_t& place) {
  std::uint32_t waiting = tenant.waiting.load(std::memory_order_relaxed);
  do {
    if (waiting >= tenant.limit) return Refusal::kQueueFull;
  } while (!tenant.waiting.compare_exchange_weak(waiting, waiting + 1, std::memory_order_relaxed));
  place = requests_.take();
  if (place != Pool<InFlight>::kEmpty) return Refusal::kNone;
  leave_room(tenant);
  return Refusal::kNoCapacity;
}

void Intake::leave_room(Tenant& tenant) {
  tenant.waiting.fetch_sub(1, std::memory_order_seq_cst);  // before make_room's look for waiters
}

void Intake::wait_for_room(const Tenant& tenant, TimeNs until) {
  const auto roomy = [&] {
    // Half the queue, so that a submitter is not woken for every single request.
    return !accepting() || tenant.removed.load() ||
           (tenant.waiting.load(std::memory_order_seq_cst) <= tenant.limit / 2 &&
            !requests_.empty());
  };
  room_waiters_.fetch_add(1, std::memory_order_seq_cst);
  room_.await(roomy, until);
  room_waiters_.fetch_sub(1, std::memory_order_relaxed);
}

void Intake::shut() {
  accepting_.store(false, std::memory_order_seq_cst);  // invariant 1
  room_.notify();
}

bool Intake::wait_idle(TimeNs until) {
  return idle_.await([this] { return in_flight() == 0; }, until);
}

}  // namespace st::rt
