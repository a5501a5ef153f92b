// How a kernel is started. For .cu sources alone, which are compiled twice: by nvcc, and as C++ for
// machines without a GPU (emulation/emulation.h).
//
//   template <class T>
//   __global__ void AddKernel(const T* a, const T* b, T* y, int64_t n) {
//     for (int64_t i = FirstIndex(); i < n; i += IndexStride()) Put(y[i], Get(a[i]) + Get(b[i]));
//   }
//   Launch(AddKernel<T>, ForElements(n), ctx, a, b, y, n);
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"
#include "core/tensor/context.h"

#ifdef MOEBIUS_CUDA_EMULATION
#include <tuple>

#include "kernels/cuda/emulation/emulation.h"
#include "kernels/cuda/emulation/stream.h"
#else
#include <cuda_runtime.h>
#endif

namespace moebius::cuda {

inline constexpr int kWarp = 32;

struct LaunchShape {
  int64_t blocks = 0;    // none: nothing is started
  int threads = 256;     // of a block; whole warps
  int shared_bytes = 0;  // dynamic shared memory of a block
};

// Enough blocks to fill a device; a thread goes over elements FirstIndex(), + IndexStride(), ...
inline LaunchShape ForElements(int64_t n) {
  constexpr int64_t kMaxBlocks = 4096;
  constexpr int kThreads = 256;
  return {std::min(kMaxBlocks, (n + kThreads - 1) / kThreads), kThreads};
}
inline LaunchShape BlockForEach(int64_t n, int threads = 256) { return {n, threads}; }
inline LaunchShape WarpForEach(int64_t n) {
  constexpr int kThreads = 256, kWarps = kThreads / kWarp;
  return {(n + kWarps - 1) / kWarps, kThreads};
}

#ifdef MOEBIUS_CUDA_EMULATION

template <class... Params, class... Args>
void LaunchOn(void* stream, void (*kernel)(Params...), const LaunchShape& shape,
              const Args&... args) {
  auto run = [=, params = std::tuple<Params...>(static_cast<Params>(args)...)] {
    cuda_emulation::Run(shape.blocks, shape.threads, shape.shared_bytes,
                        [&] { std::apply(kernel, params); });
  };
  static_cast<cuda_emulation::Stream*>(stream)->Add(std::move(run));
}

#else

// An error of the CUDA runtime ends the run: what the device holds can no longer be trusted.
inline void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  EndProcess(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error), 1);
}

template <class... Params, class... Args>
void LaunchOn(void* stream, void (*kernel)(Params...), const LaunchShape& shape,
              const Args&... args) {
  if (shape.blocks == 0) return;
  CHECK_LT(shape.blocks, int64_t{1} << 31) << "blocks of a kernel";
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  constexpr int kWithoutAsking = 48 << 10;
  if (shape.shared_bytes > kWithoutAsking) {
    CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   shape.shared_bytes),
              "asking for shared memory");
  }
  CheckCuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), "starting a kernel");
}

#endif

// Among the device's own work.
template <class... Params, class... Args>
void Launch(void (*kernel)(Params...), const LaunchShape& shape, Context& ctx,
            const Args&... args) {
  LaunchOn(ctx.accelerator()->stream(), kernel, shape, args...);
  ctx.accelerator()->MarkBusy();
}

// Calls fn(T{}) with the C++ type of F32 or BF16.
template <class Fn>
void WithType(DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(float{});
  CHECK(dtype == DType::kBF16) << NameOf(dtype);
  fn(BF16{});
}

}  // namespace moebius::cuda
