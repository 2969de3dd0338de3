/* spacetime.h: many native kernels share one device in space and time under latency objectives.

   The C API of the executor: C99, no Python. Every function may be called from any thread, also
   from runners and callbacks unless it says otherwise. Functions return ST_OK or a status > 0;
   st_last_error() then says on the calling thread, in one line, which argument and why. Handles
   are numbers: one that names nothing (any more) is refused with ST_STALE, never followed.

     st_session session;
     st_open("cpu", NULL, &session);
     st_add_lane(session, NULL, 0, NULL, NULL);             one lane on the whole device
     st_add_family(session, (uint32_t[]){1, 4}, 2, &family);
     st_set_runner(session, family, ST_ANY, run, context);
     st_add_tenant(session, family, NULL, &tenant);
     st_submit(session, tenant, NULL, &request);
     st_wait(session, request, ST_NEVER, &result);
     st_free(session);

   Words: a tenant is a model or kernel with its objective; a family is tenants whose requests can
   share a launch; a lane is an ordered execution path on one partition of the device; a runner is
   the function that executes a launch of one family on a lane. Times are integer nanoseconds. */
#ifndef SPACETIME_H
#define SPACETIME_H

#include <stddef.h>
#include <stdint.h>

#include "rt/launch.h" /* st_launch, st_native_function */

#if defined(__GNUC__)
#define ST_API __attribute__((visibility("default")))
#else
#define ST_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ST_API_VERSION 1
#define ST_VERSION "0.1.0"   /* of the release these declarations came with */
#define ST_ANY UINT32_MAX    /* every lane; no particular one */
#define ST_NEVER INT64_MAX   /* no deadline; no limit of a wait */
#define ST_TENANTS INT32_MIN /* a request's priority: its tenant's */

typedef uint64_t st_session; /* 0 is never a handle */
typedef uint64_t st_request;
typedef uint32_t st_lane; /* lanes, families and tenants count from 0 inside their session */
typedef uint32_t st_family;
typedef uint32_t st_tenant;

enum {
  ST_OK = 0,
  ST_INVALID = 1,     /* an argument is wrong */
  ST_STALE = 2,       /* the session or request does not exist, or no longer */
  ST_QUEUE_FULL = 3,  /* refused: the tenant's queue, or the session's capacity, is full */
  ST_CLOSED = 4,      /* the session is closed, or belongs to the parent process of a fork */
  ST_REMOVED = 5,     /* the tenant was removed */
  ST_PENDING = 6,     /* time is up, and it has not ended */
  ST_TOO_LATE = 7,    /* cancel: it has started or ended */
  ST_UNSUPPORTED = 8, /* this machine or build lacks it */
  ST_DRIVER = 9,      /* a call of the CUDA driver failed */
  ST_NO_MEMORY = 10,
  ST_INTERNAL = 11
};

/* How an accepted request ended. */
enum {
  ST_DONE = 0,
  ST_FAILED = 1,           /* its runner returned a code other than 0 */
  ST_DROPPED_DEADLINE = 2, /* not started when its deadline came */
  ST_DROPPED_FULL = 3,     /* accepted, then found the queue full */
  ST_DROPPED_CANCELLED = 4,
  ST_DROPPED_REMOVED = 5, /* its tenant was removed */
  ST_DROPPED_CLOSED = 6,  /* the session was closed */
  ST_OUTCOMES = 7
};

/* Codes of requests that failed without one of their runner's. */
#define ST_CODE_NO_RUNNER (-1000001) /* the family has no runner on the lane */
#define ST_CODE_LANE_LOST (-1000002) /* the lane's thread has gone */
#define ST_CODE_THROWN (-1000003)    /* the runner threw a C++ exception */

ST_API uint32_t st_api_version(void);         /* ST_API_VERSION of the library */
ST_API const char* st_version(void);          /* of the release: "0.1.0" */
ST_API const char* st_error_text(int status); /* what a status means; never NULL */
ST_API const char* st_last_error(void);       /* of this thread, until its next failing call */

/* ---- a session: an opened device, its lanes and tenants ----------------------------------- */

/* Fill structures with their _INIT first: `size` tells the library which version of it you have. */
typedef struct st_options {
  size_t size;
  const char* policy; /* time-only, space-only, space-time, elsa, gpulet, parvagpu, mps-default */
  uint32_t capacity;  /* requests in flight, over all tenants */
  int64_t age_ns;     /* a lane that passes over lower priorities for so long serves one launch of
                         them next; ST_NEVER: as long as higher ones wait */
} st_options;
#define ST_OPTIONS_INIT {sizeof(st_options), "space-time", 65536, 200000000}

/* device: "cpu", "cuda:N", or a simulated one such as "fake:h200". options: NULL is _INIT. */
ST_API int st_open(const char* device, const st_options* options, st_session* session);

/* close: refuses new requests from now on, finishes the accepted ones (drain) or drops those that
   wait, and returns after the last callback. ST_PENDING: launches were given up after timeout_ns,
   their requests end as ST_DROPPED_CLOSED. Reports and uncollected results stay. Not from a runner
   or callback. Again: nothing. */
ST_API int st_close(st_session session, int drain, int64_t timeout_ns);
/* free: closes without draining, then forgets the session; its handles are stale. Not from a
   runner or callback. */
ST_API int st_free(st_session session);

/* units: ids that partitions may name: cores of "cpu", groups of SMs of "cuda:N". Writes up to
   `room`, and how many there are to *count. */
ST_API int st_units(st_session session, uint32_t* units, uint32_t room, uint32_t* count);

/* ---- lanes, families, tenants ------------------------------------------------------------- */

typedef struct st_lane_options {
  size_t size;
  int32_t borrows;  /* whether it runs others' work while idle, where the policy lends */
  int32_t priority; /* of its streams over those of lanes that share units; CUDA only */
} st_lane_options;
#define ST_LANE_OPTIONS_INIT {sizeof(st_lane_options), 1, 0}

/* A lane with a thread of its own, on a partition of these units (NULL and 0: all of them). */
ST_API int st_add_lane(st_session session, const uint32_t* units, uint32_t count,
                       const st_lane_options* options, st_lane* lane);
/* The size of its partition, as granted: cores, or SMs. */
ST_API int st_lane_units(st_session session, st_lane lane, uint32_t* units);
/* The CUstream its runners launch on. ST_UNSUPPORTED on a CPU. */
ST_API int st_lane_stream(st_session session, st_lane lane, void** stream);

/* buckets: ascending numbers of samples that its runners are prepared for. */
ST_API int st_add_family(st_session session, const uint32_t* buckets, uint32_t count,
                         st_family* family);
/* The function that runs launches of the family on the lane's thread, or on every lane without one
   of its own (ST_ANY). launch->tokens[i] is the `user` of request i as uint64_t. `context` must
   live as long as the session. */
ST_API int st_set_runner(st_session session, st_family family, st_lane lane,
                         st_native_function runner, void* context);
/* Predicted time of a launch of `bucket` samples; corrected by what launches really take. */
ST_API int st_set_latency(st_session session, st_family family, st_lane lane, uint32_t bucket,
                          int64_t latency_ns);

typedef struct st_tenant_options {
  size_t size;
  int64_t slo_ns;             /* latency objective: the deadline of requests that name none */
  int32_t priority;           /* larger goes first, under every policy */
  uint32_t queue_limit;       /* waiting requests; one more is ST_QUEUE_FULL */
  double weight;              /* share under order fair and inside a fused launch */
  st_lane lane;               /* where route pinned queues it; owner of that lane under lending */
  const double* lane_weights; /* route weighted: planned rate by lane, or NULL */
  uint32_t lane_weight_count;
} st_tenant_options;
#define ST_TENANT_OPTIONS_INIT {sizeof(st_tenant_options), ST_NEVER, 0, 1024, 1.0, 0, NULL, 0}

ST_API int st_add_tenant(st_session session, st_family family, const st_tenant_options* options,
                         st_tenant* tenant);
/* What waits ends as ST_DROPPED_REMOVED, what runs finishes. */
ST_API int st_remove_tenant(st_session session, st_tenant tenant);

/* Where its requests queue from now on, as in st_tenant_options. move: also what waits already. */
ST_API int st_set_routes(st_session session, st_tenant tenant, st_lane lane,
                         const double* lane_weights, uint32_t lane_weight_count, int move);
/* Ends a lane that nothing routes to and nothing waits on (else ST_INVALID), and its thread. */
ST_API int st_close_lane(st_session session, st_lane lane);

typedef struct st_turn {
  st_tenant tenant;
  uint32_t batch; /* samples it may start at its turn */
} st_turn;
/* The duty cycle of a lane, under order duty (policy gpulet). */
ST_API int st_set_duty(st_session session, st_lane lane, const st_turn* turns, uint32_t count);

/* ---- requests ----------------------------------------------------------------------------- */

typedef struct st_result {
  size_t size;
  st_request request;
  void* user;
  int32_t outcome;         /* ST_DONE ... */
  int32_t code;            /* of the runner, where the outcome is ST_FAILED */
  int64_t latency_ns;      /* from submission to its end */
  int64_t wait_ns;         /* from submission to its start; latency_ns where it never started */
  st_lane lane;            /* ST_ANY where it never started */
  uint32_t launch_samples; /* of its whole launch */
  uint32_t launch_tenants;
} st_result;
#define ST_RESULT_INIT {sizeof(st_result), 0, NULL, 0, 0, 0, 0, ST_ANY, 0, 0}

/* Called once for its request, on the session's notifier thread, one callback after the other. */
typedef void (*st_callback)(void* user, const st_result* result);

typedef struct st_submission {
  size_t size;
  void* user;          /* yours: seen by runner, callback and result */
  int64_t deadline_ns; /* from now; dropped then unless started. 0: the tenant's objective */
  uint32_t samples;
  int32_t priority; /* its own, in place of the tenant's; larger goes first */
  st_callback callback;
} st_submission;
#define ST_SUBMISSION_INIT {sizeof(st_submission), NULL, 0, 1, ST_TENANTS, NULL}

/* Accepts a request, or refuses it (ST_QUEUE_FULL, ST_CLOSED, ST_REMOVED) at once. An accepted one
   is answered exactly once: through its callback, which may come before st_submit returns; else
   through st_wait, st_poll or st_forget, one of which it needs; with neither callback nor
   `request` (NULL) through nothing but the report. submission: NULL is _INIT. */
ST_API int st_submit(st_session session, st_tenant tenant, const st_submission* submission,
                     st_request* request);
/* Waits for its end, up to timeout_ns (else ST_PENDING), and takes the result: once. `result` may
   be NULL. Not for requests with a callback. */
ST_API int st_wait(st_session session, st_request request, int64_t timeout_ns, st_result* result);
ST_API int st_poll(st_session session, st_request request, st_result* result); /* wait of 0 ns */
/* ST_OK: it waited, and ends as ST_DROPPED_CANCELLED. */
ST_API int st_cancel(st_session session, st_request request);
/* Nobody will ask for its result. It still runs. */
ST_API int st_forget(st_session session, st_request request);

/* ---- what happened ------------------------------------------------------------------------ */

typedef struct st_report {
  size_t size;
  uint64_t offered;   /* accepted requests */
  uint64_t completed; /* offered = completed + failed + dropped[...] once nothing is in flight */
  uint64_t failed;
  uint64_t refused;              /* for want of room; not offered */
  uint64_t dropped[ST_OUTCOMES]; /* by outcome */
  uint64_t met;                  /* completed by their deadline */
  uint64_t late;
  double mean_samples; /* of the launches of completed requests */
  double mean_tenants;
  int64_t mean_ns; /* latencies of completed requests */
  int64_t p50_ns;
  int64_t p90_ns;
  int64_t p99_ns;
  int64_t max_ns;
  uint64_t in_flight; /* of the whole session */
} st_report;

/* Of one tenant, or of all (ST_ANY). Set report->size = sizeof(st_report) first. */
ST_API int st_read_report(st_session session, st_tenant tenant, st_report* report);

#ifdef __cplusplus
}
#endif

#endif /* SPACETIME_H */
