// Products of tiles, of which linear.cu and attention.cu are made: 256 threads compute 64 x 64
// sums, each 16 of them in registers, from slices of the operands in shared memory.
#pragma once

#include "kernels/cuda/device.h"

namespace moebius::cuda {

inline constexpr int kTile = 64;          // rows and columns of the sums
inline constexpr int kTileThreads = 256;  // of a block
inline constexpr int kSide = 16;          // kTileThreads = kSide * kSide
inline constexpr int kEach = kTile / kSide;

__host__ __device__ constexpr int64_t NumTiles(int64_t n) { return (n + kTile - 1) / kTile; }

// A thread's sums are those of rows TileRow(i) and columns TileColumn(j).
using TileSums = float[kEach][kEach];
__device__ inline int TileRow(int i) { return static_cast<int>(threadIdx.x) / kSide + kSide * i; }
__device__ inline int TileColumn(int j) {
  return static_cast<int>(threadIdx.x) % kSide + kSide * j;
}

// What lies side by side in an operand: numbers of one row of its tile, or of one depth.
enum class Contiguous { kDepth, kTile };

inline constexpr int kSlice = 16;            // of the depth
using TileSlice = float[kSlice][kTile + 2];  // 2: no two lanes write to one bank

template <Contiguous kContiguous, class Read>
__device__ inline void LoadSlice(TileSlice& slice, int64_t begin, int64_t depth, const Read& read) {
  for (int i = static_cast<int>(threadIdx.x); i < kSlice * kTile; i += kTileThreads) {
    const bool along_depth = kContiguous == Contiguous::kDepth;
    const int m = along_depth ? i / kSlice : i % kTile, k = along_depth ? i % kSlice : i / kTile;
    slice[k][m] = begin + k < depth ? read(m, begin + k) : 0.0f;
  }
}

// sums[m, n] += a(m, k) b(n, k), in the order of k = 0 .. depth - 1. All threads call, and have
// read what the operands say when it returns; what they have written to shared memory for them is
// behind a barrier.
template <Contiguous kA, Contiguous kB, class A, class B>
__device__ inline void AddProducts(int64_t depth, const A& a, const B& b, TileSums& sums) {
  __shared__ TileSlice a_slice, b_slice;
  const int row = TileRow(0), column = TileColumn(0);
  for (int64_t begin = 0; begin < depth; begin += kSlice) {
    LoadSlice<kA>(a_slice, begin, depth, a);
    LoadSlice<kB>(b_slice, begin, depth, b);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSlice; ++k) {
      float a_k[kEach], b_k[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) a_k[i] = a_slice[k][row + kSide * i];
#pragma unroll
      for (int j = 0; j < kEach; ++j) b_k[j] = b_slice[k][column + kSide * j];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) sums[i][j] += a_k[i] * b_k[j];
      }
    }
    __syncthreads();
  }
}

}  // namespace moebius::cuda
