/* launch.h: what a native function sees of a launch. Plain C, shared with the C API. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct st_launch {
  uint64_t id;
  uint32_t lane;
  uint32_t family;
  uint32_t samples; /* sum over the requests */
  uint32_t bucket;  /* samples padded up to a prepared batch size */
  uint32_t count;   /* requests; the arrays below have this length */
  const uint64_t* tokens;
  const uint32_t* tenants;
  const uint32_t* request_samples;
} st_launch;

/* Runs one launch on the calling lane's thread. 0 is success; any other value is the error code
   that every request of the launch completes with. Must not throw. */
typedef int (*st_native_function)(void* context, const st_launch* launch);

#ifdef __cplusplus
}
#endif
