// What hopper.h lists, in PTX. Included by it alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"

// PTX that only compute capability 9.0a has. Device code is compiled for other chips as well.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define MOEBIUS_WGMMA(...) asm volatile(__VA_ARGS__)
#else
#define MOEBIUS_WGMMA(...) __trap()
#endif

namespace moebius::cuda {

__device__ __forceinline__ void* DynamicShared() {
  extern __shared__ __align__(16) unsigned char moebius_dynamic_shared[];
  return moebius_dynamic_shared;
}
__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count)
               : "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ __forceinline__ void Wait(uint64_t* barrier, uint32_t parity) {
  uint32_t complete = 0;
  while (complete == 0) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(complete)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}

__device__ __forceinline__ void CopyAsync(void* to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)),
               "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kLeft>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}
__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void WgmmaFence() {
  MOEBIUS_WGMMA("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  MOEBIUS_WGMMA("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kLeft>
__device__ __forceinline__ void WgmmaWait() {
  MOEBIUS_WGMMA("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// The compiler does not see that products write d later than they are begun.
template <int n>
__device__ __forceinline__ void Settle(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Operands 10 * tens, 10 * tens + 1, ... of an asm, and the registers d[i], d[i + 1], ... for them.
#define MOEBIUS_NAMES_10(tens)                                                                  \
  "%" #tens "0,%" #tens "1,%" #tens "2,%" #tens "3,%" #tens "4,%" #tens "5,%" #tens "6,%" #tens \
  "7,%" #tens "8,%" #tens "9,"
#define MOEBIUS_NAMES_30 MOEBIUS_NAMES_10() MOEBIUS_NAMES_10(1) MOEBIUS_NAMES_10(2)
#define MOEBIUS_NAMES_60 \
  MOEBIUS_NAMES_30 MOEBIUS_NAMES_10(3) MOEBIUS_NAMES_10(4) MOEBIUS_NAMES_10(5)
#define MOEBIUS_NAMES_120                                                                          \
  MOEBIUS_NAMES_60 MOEBIUS_NAMES_10(6) MOEBIUS_NAMES_10(7) MOEBIUS_NAMES_10(8) MOEBIUS_NAMES_10(9) \
      MOEBIUS_NAMES_10(10) MOEBIUS_NAMES_10(11)
#define MOEBIUS_NAMES_32 MOEBIUS_NAMES_30 "%30,%31"
#define MOEBIUS_NAMES_64 MOEBIUS_NAMES_60 "%60,%61,%62,%63"
#define MOEBIUS_NAMES_128 MOEBIUS_NAMES_120 "%120,%121,%122,%123,%124,%125,%126,%127"
#define MOEBIUS_REGISTERS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MOEBIUS_REGISTERS_16(d, i)                                                         \
  MOEBIUS_REGISTERS_4(d, i), MOEBIUS_REGISTERS_4(d, i + 4), MOEBIUS_REGISTERS_4(d, i + 8), \
      MOEBIUS_REGISTERS_4(d, i + 12)
#define MOEBIUS_REGISTERS_32(d, i) MOEBIUS_REGISTERS_16(d, i), MOEBIUS_REGISTERS_16(d, i + 16)
#define MOEBIUS_REGISTERS_64(d, i)                                                              \
  MOEBIUS_REGISTERS_16(d, i), MOEBIUS_REGISTERS_16(d, i + 16), MOEBIUS_REGISTERS_16(d, i + 32), \
      MOEBIUS_REGISTERS_16(d, i + 48)

// A product on d of N / 2 registers, whose operands are named %N/2 and so on.
#define MOEBIUS_PRODUCT(n, names, operands, add) \
  "{\n.reg .pred add;\nsetp.ne.b32 add, " add    \
  ", 0;\n"                                       \
  "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names "}, " operands ";\n}"

template <bool kTransposedA, bool kTransposedB>
__device__ __forceinline__ void Wgmma(float (&d)[32], uint64_t a, uint64_t b, bool add = true) {
  MOEBIUS_WGMMA(MOEBIUS_PRODUCT(64, MOEBIUS_NAMES_32, "%32, %33, add, 1, 1, %34, %35", "%36")
                : MOEBIUS_REGISTERS_32(d, 0)
                : "l"(a), "l"(b), "n"(kTransposedA ? 1 : 0), "n"(kTransposedB ? 1 : 0),
                  "r"(add ? 1 : 0)
                : "memory");
}
template <bool kTransposedA, bool kTransposedB>
__device__ __forceinline__ void Wgmma(float (&d)[64], uint64_t a, uint64_t b, bool add = true) {
  MOEBIUS_WGMMA(MOEBIUS_PRODUCT(128, MOEBIUS_NAMES_64, "%64, %65, add, 1, 1, %66, %67", "%68")
                : MOEBIUS_REGISTERS_64(d, 0)
                : "l"(a), "l"(b), "n"(kTransposedA ? 1 : 0), "n"(kTransposedB ? 1 : 0),
                  "r"(add ? 1 : 0)
                : "memory");
}
template <bool kTransposedA, bool kTransposedB>
__device__ __forceinline__ void Wgmma(float (&d)[128], uint64_t a, uint64_t b, bool add = true) {
  MOEBIUS_WGMMA(MOEBIUS_PRODUCT(256, MOEBIUS_NAMES_128, "%128, %129, add, 1, 1, %130, %131", "%132")
                : MOEBIUS_REGISTERS_64(d, 0), MOEBIUS_REGISTERS_64(d, 64)
                : "l"(a), "l"(b), "n"(kTransposedA ? 1 : 0), "n"(kTransposedB ? 1 : 0),
                  "r"(add ? 1 : 0)
                : "memory");
}

template <bool kTransposedB>
__device__ __forceinline__ void Wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  MOEBIUS_WGMMA(MOEBIUS_PRODUCT(64, MOEBIUS_NAMES_32, "{%32,%33,%34,%35}, %36, add, 1, 1, %37", "1")
                : MOEBIUS_REGISTERS_32(d, 0)
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kTransposedB ? 1 : 0)
                : "memory");
}
template <bool kTransposedB>
__device__ __forceinline__ void Wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  MOEBIUS_WGMMA(
      MOEBIUS_PRODUCT(128, MOEBIUS_NAMES_64, "{%64,%65,%66,%67}, %68, add, 1, 1, %69", "1")
      : MOEBIUS_REGISTERS_64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kTransposedB ? 1 : 0)
      : "memory");
}

template <int n>
__device__ __forceinline__ void DropRegisters() {
  MOEBIUS_WGMMA("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
}
template <int n>
__device__ __forceinline__ void RaiseRegisters() {
  MOEBIUS_WGMMA("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
}

#undef MOEBIUS_WGMMA
#undef MOEBIUS_PRODUCT
#undef MOEBIUS_NAMES_10
#undef MOEBIUS_NAMES_30
#undef MOEBIUS_NAMES_60
#undef MOEBIUS_NAMES_120
#undef MOEBIUS_NAMES_32
#undef MOEBIUS_NAMES_64
#undef MOEBIUS_NAMES_128
#undef MOEBIUS_REGISTERS_4
#undef MOEBIUS_REGISTERS_16
#undef MOEBIUS_REGISTERS_32
#undef MOEBIUS_REGISTERS_64

__device__ __forceinline__ uint32_t PackBF16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace moebius::cuda
