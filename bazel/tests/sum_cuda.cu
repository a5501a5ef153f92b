// Limited by its launch: shows that nvcc's objects link into a plugin.

#include <cuda_runtime.h>

#include "bazel/tests/sum_cuda.h"

__global__ void SumKernel(int a, int b, int* out) { *out = a + b; }

int SumOnDevice(int a, int b) {
  int* out = nullptr;
  if (cudaMalloc(&out, sizeof(int)) != cudaSuccess) return -1;
  SumKernel<<<1, 1>>>(a, b, out);
  int sum = -1;
  if (cudaMemcpy(&sum, out, sizeof(int), cudaMemcpyDeviceToHost) != cudaSuccess) sum = -1;
  cudaFree(out);
  return sum;
}
