// capi_priority.cpp: priorities over the C API: the larger starts first, and a request's own wins.
#undef NDEBUG
#include <atomic>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "capi/spacetime.h"

namespace {

constexpr std::int64_t kSoon = 20'000'000'000;  // a test that waits this long has failed

void ok(int status) {
  if (status == ST_OK) return;
  std::fprintf(stderr, "%s: %s\n", st_error_text(status), st_last_error());
  std::abort();
}

// Notes the order in which requests start. The first, whose user is null, holds the lane.
struct Order {
  std::atomic<int> open{0};
  std::atomic<int> held{0};
  std::vector<std::uint64_t> started;

  static int run(void* context, const st_launch* launch) {
    Order& order = *static_cast<Order*>(context);
    assert(launch->count == 1);
    if (launch->tokens[0] != 0) {
      order.started.push_back(launch->tokens[0]);
      return 0;
    }
    order.held = 1;
    order.held.notify_all();
    order.open.wait(0);
    return 0;
  }
};

st_tenant add_tenant(st_session session, st_family family, std::int32_t priority) {
  st_tenant_options with = ST_TENANT_OPTIONS_INIT;
  with.priority = priority;
  st_tenant tenant = 0;
  ok(st_add_tenant(session, family, &with, &tenant));
  return tenant;
}

// Users 1 to 6 wait on one lane; what started, in order.
std::vector<std::uint64_t> started_in(st_options options) {
  Order order;
  options.policy = "space-only";  // one request a launch
  st_session session = 0;
  st_family family = 0;
  ok(st_open("cpu", &options, &session));
  ok(st_add_lane(session, nullptr, 0, nullptr, nullptr));
  const std::uint32_t bucket = 1;
  ok(st_add_family(session, &bucket, 1, &family));
  ok(st_set_runner(session, family, ST_ANY, Order::run, &order));
  const st_tenant plain = add_tenant(session, family, 0);
  const st_tenant urgent = add_tenant(session, family, 3);
  ok(st_submit(session, plain, nullptr, nullptr));
  order.held.wait(0);
  const auto submit = [&](st_tenant tenant, std::uintptr_t user, std::int32_t priority) {
    st_submission made = ST_SUBMISSION_INIT;
    made.user = reinterpret_cast<void*>(user);
    made.priority = priority;
    ok(st_submit(session, tenant, &made, nullptr));
  };
  submit(plain, 1, ST_TENANTS);
  submit(urgent, 2, -1);
  submit(urgent, 3, ST_TENANTS);
  submit(plain, 4, 4);
  submit(plain, 5, ST_TENANTS);
  submit(urgent, 6, 0);
  order.open = 1;
  order.open.notify_all();
  ok(st_close(session, 1, kSoon));
  ok(st_free(session));
  return order.started;
}

void refused(int status, const char* why) {
  assert(status == ST_INVALID && std::strstr(st_last_error(), why) != nullptr);
}

}  // namespace

int main() {
  st_options options = ST_OPTIONS_INIT;
  options.age_ns = ST_NEVER;
  assert((started_in(options) == std::vector<std::uint64_t>{4, 3, 1, 5, 6, 2}));
  options.age_ns = 1;  // who was passed over is next, the oldest first, and then the highest again
  assert((started_in(options) == std::vector<std::uint64_t>{4, 1, 3, 2, 5, 6}));
  options.age_ns = 0;
  st_session session = 0;
  refused(st_open("cpu", &options, &session), "options.age_ns: must be positive");
  ok(st_open("cpu", nullptr, &session));
  st_tenant_options with = ST_TENANT_OPTIONS_INIT;
  with.priority = ST_TENANTS;
  st_tenant tenant = 0;
  refused(st_add_tenant(session, 0, &with, &tenant), "tenant_options.priority: must be above");
  ok(st_free(session));
  std::puts("capi_priority: ok");
}
