// Where blocks run. Every block spins for `ns`, so that none can run after another on one SM.

__device__ unsigned multiprocessor() {
  unsigned id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  return id;
}

__device__ unsigned long long now_ns() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__device__ void spin(long long ns) {
  const unsigned long long begin = now_ns();
  while (static_cast<long long>(now_ns() - begin) < ns) {
  }
}

// smid: ids [blocks], the SM of each block.
extern "C" __global__ void smid(int* ids, long long ns) {
  spin(ns);
  if (threadIdx.x == 0) ids[blockIdx.x] = static_cast<int>(multiprocessor());
}

#ifdef CLUSTER
// clustered: as smid, in clusters of CLUSTER blocks that meet at a barrier; sizes [blocks] is the
// size each block saw. Launching it fails where a partition cannot hold such a cluster.
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1)
    clustered(int* ids, int* sizes, long long ns) {
  unsigned size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  spin(ns);
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = static_cast<int>(multiprocessor());
    sizes[blockIdx.x] = static_cast<int>(size);
  }
}
#endif
