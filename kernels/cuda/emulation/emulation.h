// CUDA's words, played by the CPU: what a .cu of this project says compiles as C++ and runs, slowly
// and one thread of a block after the other, on machines without a GPU. So every index, barrier and
// empty case of a kernel is tested where it was written; speed, and what a race would do, is not.
//
// A block's threads are fibers, which go on until they end or meet a barrier. A thread that waits
// for a barrier which the others of its block, or of its warp, never reach ends the process with a
// sentence. Blocks run one after the other.
//
// Included in place of the CUDA headers, by sources compiled with MOEBIUS_CUDA_EMULATION.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Keeps what the block before has left there.
#define __shared__ static thread_local

namespace moebius::cuda_emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Place {
  Index thread = {}, block = {}, threads = {}, blocks = {};  // the last two: how many there are
};
Place& CurrentPlace();

// Runs `body` for every thread of `blocks` blocks of `threads` threads with `shared_bytes` of
// dynamic shared memory, on the calling thread.
void Run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& body);

void BlockBarrier();
void WarpBarrier();
// Until other threads of the block have made `ready` true.
void Poll(const std::function<bool()>& ready);
// Of `bytes` <= 8: what lane `from` of the warp gives.
void Exchange(void* value, int bytes, int from);
int Lane();

template <class T>
T FromLane(T value, int from) {
  Exchange(&value, sizeof value, from);
  return value;
}

}  // namespace moebius::cuda_emulation

#define threadIdx (::moebius::cuda_emulation::CurrentPlace().thread)
#define blockIdx (::moebius::cuda_emulation::CurrentPlace().block)
#define blockDim (::moebius::cuda_emulation::CurrentPlace().threads)
#define gridDim (::moebius::cuda_emulation::CurrentPlace().blocks)

inline void __syncthreads() { moebius::cuda_emulation::BlockBarrier(); }
inline void __syncwarp() { moebius::cuda_emulation::WarpBarrier(); }

// Whole warps alone.
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return moebius::cuda_emulation::FromLane(value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return moebius::cuda_emulation::FromLane(value, moebius::cuda_emulation::Lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int lanes) {
  const int from = moebius::cuda_emulation::Lane() - lanes;
  return moebius::cuda_emulation::FromLane(value, from < 0 ? from + lanes : from);
}

template <class T>
unsigned __match_any_sync(unsigned, T value) {
  unsigned alike = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (moebius::cuda_emulation::FromLane(value, lane) == value) alike |= 1u << lane;
  }
  return alike;
}
inline int __all_sync(unsigned, int predicate) {
  int all = predicate != 0 ? 1 : 0;
  for (int mask = 16; mask > 0; mask /= 2) all &= __shfl_xor_sync(0xFFFFFFFFu, all, mask);
  return all;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

using std::max;
using std::min;
