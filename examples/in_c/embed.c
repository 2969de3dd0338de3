/* embed.c: two native kernels share the cores of this machine, each with its objective.

   A matrix product (compute) and a long copy (memory bandwidth) are two families, each with two
   tenants. Policy space-time: a lane for each half of the cores, idle lanes run others' work, and
   requests of one family that wait together share a launch. Build: make, or cmake. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spacetime.h>

enum { SIDE = 96, FLOATS = 1 << 18, REQUESTS = 200, TENANTS = 4 };

static void check(int status) {
  if (status == ST_OK) return;
  fprintf(stderr, "embed: %s: %s\n", st_error_text(status), st_last_error());
  exit(1);
}

/* One request: its input, its output, and whether its answer came. */
typedef struct {
  const float *in;
  float *out;
  int answers;
  int outcome;
} work;

/* A runner gets a batch: the work of each request is its token. */
static int product(void *context, const st_launch *launch) {
  const float *weights = context;
  for (uint32_t r = 0; r < launch->count; ++r) {
    const work *w = (const work *)(uintptr_t)launch->tokens[r];
    for (int i = 0; i < SIDE; ++i) {
      for (int j = 0; j < SIDE; ++j) {
        float sum = 0;
        for (int k = 0; k < SIDE; ++k) sum += w->in[i * SIDE + k] * weights[k * SIDE + j];
        w->out[i * SIDE + j] = sum;
      }
    }
  }
  return 0;
}

static int copy(void *context, const st_launch *launch) {
  (void)context;
  for (uint32_t r = 0; r < launch->count; ++r) {
    const work *w = (const work *)(uintptr_t)launch->tokens[r];
    memcpy(w->out, w->in, FLOATS * sizeof(float));
  }
  return 0;
}

static void answered(void *user, const st_result *result) {
  work *w = user;
  w->answers++;
  w->outcome = result->outcome;
}

/* Lanes on both halves of what units the device has; one lane where it has one. */
static uint32_t add_lanes(st_session session) {
  uint32_t units[1024], count = 0, half;
  check(st_units(session, units, 1024, &count));
  if (count > 1024) count = 1024;
  half = count / 2;
  if (half > 0) check(st_add_lane(session, units, half, NULL, NULL));
  check(st_add_lane(session, units + half, count - half, NULL, NULL));
  return half > 0 ? 2 : 1;
}

static st_family add_family(st_session session, uint32_t lanes, st_native_function runner,
                            void *context, int64_t one_ns) {
  const uint32_t buckets[] = {1, 2, 4};
  st_family family;
  uint32_t lane, b;
  check(st_add_family(session, buckets, 3, &family));
  check(st_set_runner(session, family, ST_ANY, runner, context));
  for (lane = 0; lane < lanes; ++lane) {
    for (b = 0; b < 3; ++b) { /* predictions; what launches really take corrects them */
      check(st_set_latency(session, family, lane, buckets[b], one_ns * buckets[b]));
    }
  }
  return family;
}

int main(void) {
  static float weights[SIDE * SIDE], in[FLOATS];
  static work works[REQUESTS];
  const char *names[TENANTS] = {"product a", "product b", "copy a", "copy b"};
  st_session session;
  st_family families[2];
  st_tenant tenants[TENANTS];
  uint32_t lanes;
  int i, wrong = 0;
  for (i = 0; i < FLOATS; ++i) in[i] = (float)(i % 7);
  for (i = 0; i < SIDE * SIDE; ++i) weights[i] = i % (SIDE + 1) == 0 ? 2.0f : 0.0f; /* 2 x unit */

  check(st_open("cpu", NULL, &session));
  lanes = add_lanes(session);
  families[0] = add_family(session, lanes, product, weights, 1000000);
  families[1] = add_family(session, lanes, copy, NULL, 200000);
  for (i = 0; i < TENANTS; ++i) {
    st_tenant_options options = ST_TENANT_OPTIONS_INIT;
    options.slo_ns = 10000000000; /* 10 s: this example runs anywhere, however slowly */
    check(st_add_tenant(session, families[i / 2], &options, &tenants[i]));
  }
  for (i = 0; i < REQUESTS; ++i) {
    st_submission submission = ST_SUBMISSION_INIT;
    works[i].in = in;
    works[i].out = malloc(FLOATS * sizeof(float));
    if (works[i].out == NULL) return 1;
    submission.user = &works[i];
    submission.callback = answered;
    check(st_submit(session, tenants[i % TENANTS], &submission, NULL));
  }
  check(st_close(session, 1, ST_NEVER)); /* drains: every callback has come */

  for (i = 0; i < REQUESTS; ++i) {
    const int compute = i % TENANTS < 2;
    const float expected = compute ? 2 * in[SIDE + 3] : in[SIDE + 3];
    if (works[i].answers != 1 || works[i].outcome != ST_DONE) ++wrong;
    if (works[i].out[SIDE + 3] != expected) ++wrong;
    free(works[i].out);
  }
  printf("%-10s %9s %9s %9s %9s %9s\n", "tenant", "completed", "in time", "samples", "tenants",
         "p99 ms");
  for (i = 0; i < TENANTS; ++i) {
    st_report report;
    report.size = sizeof report;
    check(st_read_report(session, tenants[i], &report));
    printf("%-10s %9llu %9llu %9.2f %9.2f %9.2f\n", names[i], (unsigned long long)report.completed,
           (unsigned long long)report.met, report.mean_samples, report.mean_tenants,
           (double)report.p99_ns / 1e6);
  }
  printf("%d requests on %u lanes, %d wrong\n", REQUESTS, lanes, wrong);
  check(st_free(session));
  return wrong != 0;
}
