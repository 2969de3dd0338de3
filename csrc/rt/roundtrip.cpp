#include "rt/roundtrip.h"

#include <algorithm>
#include <stdexcept>

namespace st::rt {

std::vector<TimeNs> roundtrip(Executor& executor, TenantId tenant, std::uint32_t count) {
  std::vector<TimeNs> took;
  took.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto ticket = std::make_shared<Ticket>(1);
    ticket->open();
    RequestId id = 0;
    const TimeNs before = now_ns();
    const Refusal refusal = executor.submit({.tenant = tenant, .ticket = ticket.get()}, id);
    if (refusal != Refusal::kNone) {
      ticket->settle(Outcome::kQueueFull, 1);
      throw std::runtime_error("roundtrip: a request was refused");
    }
    ticket->wait(kNever);
    took.push_back(now_ns() - before);
  }
  std::sort(took.begin(), took.end());
  return took;
}

}  // namespace st::rt
