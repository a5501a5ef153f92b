// Limited by its launch: shows that nvcc's objects link into a plugin.

#include <cuda_runtime.h>

__global__ void SumKernel(int a, int b, int* out) { *out = a + b; }

// Returns a + b computed on the device, or -1 when there is none.
extern "C" int Sum(int a, int b) {
  int* out = nullptr;
  if (cudaMallocManaged(&out, sizeof(int)) != cudaSuccess) return -1;
  SumKernel<<<1, 1>>>(a, b, out);
  const int sum = cudaDeviceSynchronize() == cudaSuccess ? *out : -1;
  cudaFree(out);
  return sum;
}
