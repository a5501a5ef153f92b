// What kernels are made of: elements as floats, places of threads, sums of warps and blocks.
// For .cu sources alone. Sums are taken in an order that depends on sizes alone.
#pragma once

#include "kernels/cuda/launch.h"

namespace moebius::cuda {

__device__ inline float Get(float x) { return x; }
__device__ inline float Get(BF16 x) { return static_cast<float>(x); }
__device__ inline void Put(float& slot, float x) { slot = x; }
__device__ inline void Put(BF16& slot, float x) { slot = BF16(x); }
template <class T>
__device__ inline void Put(T& slot, float x, bool accumulate) {
  Put(slot, accumulate ? Get(slot) + x : x);
}

__device__ inline int64_t FirstIndex() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline int64_t IndexStride() { return int64_t{gridDim.x} * blockDim.x; }
__device__ inline int64_t WarpIndex() { return FirstIndex() / kWarp; }
__device__ inline int LaneIndex() { return static_cast<int>(threadIdx.x) % kWarp; }

__device__ inline float Logistic(float z) { return 1.0f / (1.0f + expf(-z)); }

// Of all lanes, in each of them. All 32 lanes call.
template <class T, class Combine>
__device__ inline T WarpReduce(T x, const Combine& combine) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    x = combine(x, __shfl_xor_sync(0xFFFFFFFFu, x, mask));
  }
  return x;
}
template <class T>
__device__ inline T WarpSum(T x) {
  return WarpReduce(x, [](T a, T b) { return a + b; });
}

// Of all threads of a block, in each of them; `zero` changes nothing. All threads call.
template <class T, class Combine>
__device__ inline T BlockReduce(T x, T zero, const Combine& combine) {
  __shared__ T of_warp[kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = LaneIndex();
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  x = WarpReduce(x, combine);
  __syncthreads();  // what an earlier reduction left has been read
  if (lane == 0) of_warp[warp] = x;
  __syncthreads();
  return WarpReduce(lane < num_warps ? of_warp[lane] : zero, combine);
}
template <class T>
__device__ inline T BlockSum(T x) {
  return BlockReduce(x, T{0}, [](T a, T b) { return a + b; });
}

}  // namespace moebius::cuda
