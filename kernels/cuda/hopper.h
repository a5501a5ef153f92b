// Instructions of Hopper GPUs (compute capability 9.0a) as functions: PTX in hopper_ptx.h, and the
// same by the CPU in emulation/hopper.h. Source: PTX ISA 8.0, "Data Movement and Conversion",
// "Parallel Synchronization: mbarrier" and "Asynchronous Warpgroup Level Matrix Instructions". Each
// does what its instruction does, no more:
//
//   void* DynamicShared()                    the block's dynamic shared memory, 16-byte aligned
//   uint32_t SharedAddress(const void*)      where descriptors say it lies
//   void InitBarrier(uint64_t*, int count)   an mbarrier that `count` arrivals complete, again and
//                                            again; phases are counted from 0
//   void Arrive(uint64_t*)                   releases what the thread has done before
//   void Wait(uint64_t*, uint32_t parity)    until a phase of this parity is complete: 1 is so at
//                                            once on a new barrier
//   void CopyAsync(void* to, const void* from, bool inside)
//                                            16 bytes from global to shared memory, both aligned;
//                                            zeros, and `from` is not read, where not inside
//   void CommitCopies()                      the thread's copies so far are a group
//   void WaitCopies<n>()                     all its groups but the last n have landed
//   void FenceAsyncProxy()                   what the thread wrote to shared memory, copies that
//                                            landed included, can be read by tensor cores
//   void WgmmaFence()                        before the first product on registers that were
//                                            touched otherwise
//   void Wgmma<kTransposedA, kTransposedB>(float (&d)[N / 2], uint64_t a, uint64_t b, bool add)
//                                            d += a b, or d = a b unless `add` (by default it is):
//                                            64 x 16 times 16 x N of BF16, begun by the 128 threads
//                                            of a warpgroup, each with its part of d
//                                            (AccumulatorRow, AccumulatorColumn); N is 64, 128, 256
//   void Wgmma<kTransposedB>(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b)
//                                            d += a b, with the thread's part of a in registers
//                                            (PackOperand); N is 64 or 128
//   void WgmmaCommit()                       the thread's products so far are a group
//   void WgmmaWait<n>()                      all groups but the last n are done: their d may be
//                                            read, and their registers written
//   void Settle(float (&d)[n])               behind WgmmaWait, before d is read
//   void DropRegisters<n>(), RaiseRegisters<n>()
//                                            by a whole warpgroup: each of its threads has n from
//                                            now on, of those that the block began with
//   uint32_t PackBF16(float low, float high)
//   float Exp2(float x)                      2^x to 2 units in the last place; 0 below 2^-126
//
// MOEBIUS_HOPPER is defined where they exist. Device code is compiled for other chips as well,
// where kernels made of them are empty and never started.
#pragma once

#include "kernels/cuda/device.h"

#ifdef MOEBIUS_CUDA_EMULATION
#include "kernels/cuda/emulation/hopper.h"
#else
#include "kernels/cuda/hopper_ptx.h"
#endif

namespace moebius::cuda {

inline constexpr int kWarpgroup = 128;  // threads

// Numbers of an operand of Wgmma lie in 128-byte lines, 1024-byte aligned atoms of eight, whose
// 16-byte cells are swizzled: cell c of line l stands at c ^ (l % 8). A line holds 64 numbers of
// the depth of one row or column (not transposed), or 64 rows or columns of one depth (transposed).
inline constexpr int kLineBytes = 128, kCellBytes = 16, kAtomBytes = 1024;

__device__ __forceinline__ int SwizzledCell(int line, int cell) { return cell ^ (line % 8); }

// The matrix descriptor of an operand that begins at `begin`: one atom behind the other along the
// lines; transposed, `leading_bytes` from 64 rows or columns to the next 64. The depth goes on by
// 16 within a line 32 bytes further, transposed two atoms further.
__device__ __forceinline__ uint64_t MatrixDescriptor(const void* begin, uint32_t leading_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{kAtomBytes >> 4} << 32 | uint64_t{leading_bytes >> 4} << 16 |
         (SharedAddress(begin) & 0x3FFFFu) >> 4;
}
__device__ __forceinline__ uint64_t Further(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Of number i of a thread's d.
__device__ __forceinline__ int AccumulatorRow(int i) {
  return static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16 + LaneIndex() / 4 + i / 2 % 2 * 8;
}
__device__ __forceinline__ int AccumulatorColumn(int i) {
  return i / 4 * 8 + LaneIndex() % 4 * 2 + i % 2;
}

// Columns 16 k .. 16 k + 15 of a thread's d, rounded: the a of another product, 16 deep.
template <int n>
__device__ __forceinline__ void PackOperand(const float (&d)[n], int k, uint32_t (&a)[4]) {
  const auto pair = [&](int i) { return PackBF16(d[8 * k + 2 * i], d[8 * k + 2 * i + 1]); };
  a[0] = pair(0), a[1] = pair(1), a[2] = pair(2), a[3] = pair(3);
}

}  // namespace moebius::cuda
