// Limited by latency: three short kernels.
#include "kernels/cuda/counting_sort.h"

namespace moebius::cuda {
namespace {

constexpr int64_t kScanChunk = 4096;  // elements that a block scans

// The sum of what the threads of the block before this one give, and of all. All threads call.
__device__ int32_t SumBefore(int32_t x, int32_t* total) {
  __shared__ int32_t of_warp[kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = LaneIndex();
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  int32_t sum = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
    if (lane >= step) sum += before;
  }
  __syncthreads();  // what an earlier call left has been read
  if (lane == kWarp - 1) of_warp[warp] = sum;
  __syncthreads();
  sum -= x;
  *total = 0;
  for (int w = 0; w < num_warps; ++w) {
    if (w < warp) sum += of_warp[w];
    *total += of_warp[w];
  }
  return sum;
}

// The sum of each chunk of kScanChunk elements.
__global__ void ChunkSumsKernel(const int32_t* x, int64_t n, int32_t* sums) {
  const int64_t begin = blockIdx.x * kScanChunk, end = min(n, begin + kScanChunk);
  int32_t sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += x[i];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// x[i] becomes the sum of the elements before it in its chunk, and of sums[chunk] if there are any.
__global__ void ScanKernel(int32_t* x, int64_t n, int64_t chunk, const int32_t* sums) {
  const int64_t begin = blockIdx.x * chunk, end = min(n, begin + chunk);
  int32_t sum = sums == nullptr ? 0 : sums[blockIdx.x];
  for (int64_t tile = begin; tile < end; tile += blockDim.x) {
    const int64_t i = tile + threadIdx.x;
    int32_t of_tile = 0;
    const int32_t before = SumBefore(i < end ? x[i] : 0, &of_tile);
    if (i < end) x[i] = sum + before;
    sum += of_tile;
  }
}

}  // namespace

void ExclusiveSums(const Tensor& x, Context& ctx) {
  const int64_t n = x.size(), chunks = (n + kScanChunk - 1) / kScanChunk;
  const Tensor sums = ctx.Empty(DType::kI32, {chunks}, "sums");
  int32_t *const elements = x.device_data<int32_t>(), *const of_chunk = sums.device_data<int32_t>();
  Launch(ChunkSumsKernel, BlockForEach(chunks), ctx, elements, n, of_chunk);
  Launch(ScanKernel, BlockForEach(1), ctx, of_chunk, chunks, chunks, nullptr);
  Launch(ScanKernel, BlockForEach(chunks), ctx, elements, n, kScanChunk, of_chunk);
}

}  // namespace moebius::cuda
