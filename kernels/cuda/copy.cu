// copy: `rounds` times from -> to, 16 bytes a thread at a time, past the first-level cache. A buffer
// that fits in L2 loads L2, a larger one HBM: 32 bytes moved for each element and round.
extern "C" __global__ void copy(const float4* from, float4* to, long long count, int rounds) {
  const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (int round = 0; round < rounds; ++round) {
    long long i = first;
    for (; i + 3 * step < count; i += 4 * step) {  // four loads in flight hide their latency
      const float4 a = __ldcg(from + i);
      const float4 b = __ldcg(from + i + step);
      const float4 c = __ldcg(from + i + 2 * step);
      const float4 d = __ldcg(from + i + 3 * step);
      __stcg(to + i, a);
      __stcg(to + i + step, b);
      __stcg(to + i + 2 * step, c);
      __stcg(to + i + 3 * step, d);
    }
    for (; i < count; i += step) __stcg(to + i, __ldcg(from + i));
  }
}
