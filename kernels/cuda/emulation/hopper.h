// What kernels/cuda/hopper.h lists, played by the CPU as strictly as the PTX ISA speaks:
// descriptors are decoded bit by bit; a copy lands no sooner than its group is waited for, and the
// registers of a product are NaN until then. The process ends with a sentence where
//
//  * a product reads shared memory that nothing was copied to, whose copy has not landed, or which
//    no fence has shown to the tensor cores;
//  * a copy overwrites what a product that is not done may read;
//  * registers go into a product without a fence, or change before it is done, or a warpgroup's
//    threads differ in what they say;
//  * a thread ends before its copies have landed and its products are done.
//
// Dynamic shared memory is unknown (NaN) when a block begins.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>

#include "core/tensor/dtype.h"
#include "kernels/cuda/emulation/emulation.h"

namespace moebius::cuda_emulation {

// Of the block that runs (emulation.cc).
void BeginAsync(int threads, int64_t shared_bytes);
void EndAsync();

void* DynamicShared();
uint32_t SharedAddress(const void* p);
void InitBarrier(uint64_t* barrier, int count);
void Arrive(uint64_t* barrier);
void WaitForBarrier(uint64_t* barrier, uint32_t parity);
void CopyAsync(void* to, const void* from, bool inside);
void CommitCopies();
void WaitCopies(int left);
void FenceAsyncProxy();
void WgmmaFence();
void WgmmaCommit();
void WgmmaWait(int left);

struct WgmmaOperand {
  uint64_t descriptor;
  bool transposed;
  bool operator==(const WgmmaOperand&) const = default;
};
// Which the threads of a warpgroup must agree about.
struct WgmmaProduct {
  std::optional<WgmmaOperand> a;  // or in registers
  WgmmaOperand b;
  int columns;
  bool add;
  bool operator==(const WgmmaProduct&) const = default;
};
void Wgmma(const WgmmaProduct& product, float* d, const uint32_t* a_registers);

// Products begun by warpgroups of this process.
int64_t NumProducts();

}  // namespace moebius::cuda_emulation

namespace moebius::cuda {

using cuda_emulation::Arrive;
using cuda_emulation::CommitCopies;
using cuda_emulation::CopyAsync;
using cuda_emulation::DynamicShared;
using cuda_emulation::FenceAsyncProxy;
using cuda_emulation::InitBarrier;
using cuda_emulation::SharedAddress;
using cuda_emulation::WgmmaCommit;
using cuda_emulation::WgmmaFence;

inline void Wait(uint64_t* barrier, uint32_t parity) {
  cuda_emulation::WaitForBarrier(barrier, parity);
}
template <int kLeft>
void WaitCopies() {
  cuda_emulation::WaitCopies(kLeft);
}
template <int kLeft>
void WgmmaWait() {
  cuda_emulation::WgmmaWait(kLeft);
}
template <int n>
void Settle(float (&)[n]) {}
template <bool kTransposedA, bool kTransposedB, int n>
void Wgmma(float (&d)[n], uint64_t a, uint64_t b, bool add = true) {
  cuda_emulation::Wgmma(
      {cuda_emulation::WgmmaOperand{a, kTransposedA}, {b, kTransposedB}, 2 * n, add}, d, nullptr);
}
template <bool kTransposedB, int n>
void Wgmma(float (&d)[n], const uint32_t (&a)[4], uint64_t b) {
  cuda_emulation::Wgmma({std::nullopt, {b, kTransposedB}, 2 * n, true}, d, a);
}
template <int n>
void DropRegisters() {
  static_assert(n % 8 == 0 && 24 <= n && n <= 256);
}
template <int n>
void RaiseRegisters() {
  static_assert(n % 8 == 0 && 24 <= n && n <= 256);
}
inline uint32_t PackBF16(float low, float high) {
  return uint32_t{BF16(high).bits} << 16 | BF16(low).bits;
}
inline float Exp2(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }

}  // namespace moebius::cuda
