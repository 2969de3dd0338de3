/* capi_dispatch.c: what a request costs through the C API: st_submit to the end of st_wait, on one
   lane (the last core, as bench_dispatch.py) whose runner does nothing. Prints ns, one a line. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <spacetime.h>

static int nothing(void *context, const st_launch *launch) {
  (void)context;
  (void)launch;
  return 0;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int main(int argc, char **argv) {
  const long count = argc > 1 ? atol(argv[1]) : 1000, warm_up = 100;
  const uint32_t buckets[] = {1, 16};
  st_session session;
  st_family family;
  st_tenant tenant;
  uint32_t units[8192], all = 0;
  long i;
  int bad = st_open("cpu", NULL, &session) || st_units(session, units, 8192, &all) ||
            st_add_lane(session, &units[all - 1], 1, NULL, NULL) ||
            st_add_family(session, buckets, 2, &family) ||
            st_set_runner(session, family, ST_ANY, nothing, NULL) ||
            st_add_tenant(session, family, NULL, &tenant);
  for (i = 0; !bad && i < count + warm_up; ++i) {
    st_request request;
    const int64_t before = now_ns();
    bad = st_submit(session, tenant, NULL, &request) || st_wait(session, request, ST_NEVER, NULL);
    if (i >= warm_up) printf("%lld\n", (long long)(now_ns() - before));
  }
  if (bad) fprintf(stderr, "capi_dispatch: %s\n", st_last_error());
  st_free(session);
  return bad != 0;
}
