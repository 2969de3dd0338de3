// Loops of known arithmetic: stressors, and the microbenchmark of an SM's peak.
// Every thread stores its sum, so nothing is optimised away and the result can be checked.

constexpr int kChains = 8;   // independent, to fill the pipeline
constexpr int kUnroll = 16;  // multiply-adds of each chain in a round
constexpr float kScale = 0.5f;
constexpr float kShift = 1.0f;

// fma_loop: out [blocks * threads]; 2 * kChains * kUnroll FLOP a thread and round.
extern "C" __global__ void fma_loop(float* out, int rounds) {
  float v[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) v[i] = static_cast<float>(threadIdx.x + i);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int i = 0; i < kChains; ++i) v[i] = fmaf(v[i], kScale, kShift);
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += v[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

#ifdef __CUDACC__  // a host compiler, which checks the rest, knows no tensor cores
constexpr int kTiles = 4;  // independent 16 x 8 tiles of a warp

// mma_loop: out [blocks * threads]; kTiles * 2 * 16 * 8 * 16 FLOP a warp and round, in bfloat16
// with sums in float32. Operands are ones: each round adds 16 to every element.
extern "C" __global__ void mma_loop(float* out, int rounds) {
  const unsigned ones = 0x3f803f80u;
  float c[kTiles][4] = {};
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[t][0]), "+f"(c[t][1]), "+f"(c[t][2]), "+f"(c[t][3])
          : "r"(ones), "r"(ones), "r"(ones), "r"(ones), "r"(ones), "r"(ones));
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) sum += c[t][0] + c[t][1] + c[t][2] + c[t][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
#endif
