/* fake_libcuda.c: as much of a libcuda.so.1 as the loader sees. tests/native/loader.cpp compiles it.
   -DDRIVER=12040   the driver's version: it has no call of a later one
   -DLACKS='"name"' a call that it does not have
   -DINIT=100       what cuInit returns
   -DBARE           it has no cuGetProcAddress_v2, as drivers before CUDA 12.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef DRIVER
#define DRIVER 13010
#endif
#ifndef LACKS
#define LACKS ""
#endif

#ifndef INIT
#define INIT 0
#endif

static int initialized;
static int init(unsigned flags) {
  if (flags != 0) return 1;
  initialized = INIT == 0;
  return INIT;
}
int cuDeviceGetCount(int *count) { return *count = 1, initialized ? 0 : 3; }
static int version(int *found) { return *found = DRIVER, 0; }
static int unexpected(void) { abort(); }
static int unnamed(int code, const char **text) { return *text = 0, 1; }

#ifdef BARE
int cuInit(unsigned flags) { return init(flags) + unexpected() + version(0) + unnamed(0, 0); }
#else
int cuGetProcAddress_v2(const char *name, void **found, int since, uint64_t flags, int *status) {
  *found = 0;
  *status = since > DRIVER ? 2 : 1; /* version not sufficient, symbol not found */
  if (flags != 0 || since > DRIVER || strcmp(name, LACKS) == 0) return 500;
  *status = 0;
  *found = (void *)unexpected;
  if (strcmp(name, "cuInit") == 0) *found = (void *)init;
  if (strcmp(name, "cuDriverGetVersion") == 0) *found = (void *)version;
  if (strncmp(name, "cuGetError", 10) == 0) *found = (void *)unnamed;
  return 0;
}
#endif
