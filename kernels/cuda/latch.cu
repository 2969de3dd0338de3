// latch: holds a stream until the host opens it, so that tests need no sleep. One thread, one block.
// flag[0] is written by the host, flag[1] by the device: 1 when opened, 2 when it gave up after
// `limit` looks of about a microsecond each. Both lie in pinned memory, which the device sees too.
extern "C" __global__ void latch(volatile int* flag, long long limit) {
  for (long long i = 0; i < limit; ++i) {
    if (flag[0] != 0) {
      flag[1] = 1;
      return;
    }
    __nanosleep(500);
  }
  flag[1] = 2;
}
