// Limited by bandwidth: rows that there are, are read and written once; their slots are found by
// short kernels over a few bytes a row.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// The blocks that ranks exchange, as kernels see them.
struct RowBlocks {
  const int32_t *expert_offsets, *first_experts;
  int64_t rank, copies, num_ranks, num_owners, num_experts, num_local, capacity;

  __device__ const int32_t* OffsetsOf(int64_t r) const {
    return expert_offsets + r * (num_experts + 1);
  }
  // Where the rows for local expert j begin in what rank r sends here.
  __device__ int32_t SlotOf(int64_t r, int64_t j) const {
    const int32_t* const own = OffsetsOf(r) + first_experts[rank / copies];
    return min(own[j] - own[0], static_cast<int32_t>(capacity));
  }
};

// A warp for each local expert j, and one for the end: where its rows begin among all, and, in
// shifts [n, e], how much further on those of rank r stand than in its block.
__global__ void ReceivedRowsKernel(RowBlocks blocks, int32_t* local_offsets, int32_t* shifts) {
  const int64_t j = WarpIndex();
  if (j > blocks.num_local) return;
  int32_t begin = 0;
  for (int64_t r = LaneIndex(); r < blocks.num_ranks; r += kWarp) begin += blocks.SlotOf(r, j);
  begin = WarpSum(begin);
  if (LaneIndex() == 0) local_offsets[j] = begin;
  if (j == blocks.num_local) return;
  for (int64_t first = 0; first < blocks.num_ranks; first += kWarp) {
    const int64_t r = first + LaneIndex();
    const int32_t slot = r < blocks.num_ranks ? blocks.SlotOf(r, j) : 0;
    const int32_t count = r < blocks.num_ranks ? blocks.SlotOf(r, j + 1) - slot : 0;
    int32_t sum = count;
    for (int step = 1; step < kWarp; step *= 2) {
      const int32_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
      if (LaneIndex() >= step) sum += before;
    }
    if (r < blocks.num_ranks) shifts[r * blocks.num_local + j] = begin + sum - count - slot;
    begin += __shfl_sync(0xFFFFFFFFu, sum, kWarp - 1);
  }
}

__global__ void ReceivedSlotsKernel(RowBlocks blocks, const int32_t* shifts, int32_t* received) {
  for (int64_t i = FirstIndex(); i < blocks.num_ranks * blocks.capacity; i += IndexStride()) {
    const int64_t r = i / blocks.capacity;
    const auto slot = static_cast<int32_t>(i % blocks.capacity);
    int64_t j = 0, beyond = blocks.num_local;  // the last expert that does not begin behind `slot`
    while (beyond - j > 1) {
      const int64_t middle = (j + beyond) / 2;
      (blocks.SlotOf(r, middle) <= slot ? j : beyond) = middle;
    }
    const bool holds = slot < blocks.SlotOf(r, blocks.num_local);
    received[i] = holds ? slot + shifts[r * blocks.num_local + j] : -1;
  }
}

__global__ void SentSlotsKernel(RowBlocks blocks, int64_t num_rows, int32_t* sent,
                                double* overflow) {
  const int32_t* const offsets = blocks.OffsetsOf(blocks.rank);
  for (int64_t row = FirstIndex(); row < num_rows; row += IndexStride()) {
    int64_t owner = 0, beyond = blocks.num_owners;  // the last one that does not begin behind `row`
    while (beyond - owner > 1) {
      const int64_t middle = (owner + beyond) / 2;
      (offsets[blocks.first_experts[middle]] <= row ? owner : beyond) = middle;
    }
    const int64_t slot = row - offsets[blocks.first_experts[owner]];
    const bool fits = slot < blocks.capacity;
    sent[row] = fits ? static_cast<int32_t>(owner * blocks.copies * blocks.capacity + slot) : -1;
    if (!fits) *overflow = 1;
  }
}

// A block for each row of x.
template <class T>
__global__ void ScatterRowsKernel(const T* x, const int32_t* at, int64_t copies, int64_t step, T* y,
                                  int64_t D) {
  const int64_t i = blockIdx.x, first = at[i];
  if (first < 0) return;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    const T value = x[i * D + d];
    for (int64_t c = 0; c < copies; ++c) y[(first + c * step) * D + d] = value;
  }
}

// A block for each row of y.
template <class T>
__global__ void GatherRowsKernel(const T* x, const int32_t* at, int64_t copies, int64_t step, T* y,
                                 int64_t D) {
  const int64_t i = blockIdx.x, first = at[i];
  if (first < 0) return;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    float sum = Get(x[first * D + d]);
    for (int64_t c = 1; c < copies; ++c) sum += Get(x[(first + c * step) * D + d]);
    Put(y[i * D + d], sum);
  }
}

}  // namespace

void RowSlots(const kernels::RowSlotsArgs& args, Context& ctx) {
  const RowBlocks blocks = {.expert_offsets = args.expert_offsets.device_data<int32_t>(),
                            .first_experts = args.first_experts.device_data<int32_t>(),
                            .rank = args.rank,
                            .copies = args.copies,
                            .num_ranks = args.received.shape()[0],
                            .num_owners = args.first_experts.size() - 1,
                            .num_experts = args.expert_offsets.shape()[1] - 1,
                            .num_local = args.local_offsets.size() - 1,
                            .capacity = args.received.shape()[1]};
  const Tensor shifts =
      ctx.Empty(DType::kI32, {blocks.num_ranks, blocks.num_local}, "exchange.shifts");
  Launch(ReceivedRowsKernel, WarpForEach(blocks.num_local + 1), ctx, blocks,
         args.local_offsets.device_data<int32_t>(), shifts.device_data<int32_t>());
  Launch(ReceivedSlotsKernel, ForElements(args.received.size()), ctx, blocks,
         shifts.device_data<int32_t>(), args.received.device_data<int32_t>());
  Launch(SentSlotsKernel, ForElements(args.sent.size()), ctx, blocks, args.sent.size(),
         args.sent.device_data<int32_t>(), args.overflow.device_data<double>());
}

void ScatterRows(const kernels::ScatterRowsArgs& args, Context& ctx) {
  const auto [rows, D] = Dims<2>(args.x);
  WithType(args.x.dtype(), [&, rows = rows, D = D]<class T>(T) {
    Launch(ScatterRowsKernel<T>, BlockForEach(rows), ctx, args.x.device_data<T>(),
           args.at.device_data<int32_t>(), args.copies, args.step, args.y.device_data<T>(), D);
  });
}

void GatherRows(const kernels::GatherRowsArgs& args, Context& ctx) {
  const auto [rows, D] = Dims<2>(args.y);
  WithType(args.y.dtype(), [&, rows = rows, D = D]<class T>(T) {
    Launch(GatherRowsKernel<T>, BlockForEach(rows), ctx, args.x.device_data<T>(),
           args.at.device_data<int32_t>(), args.copies, args.step, args.y.device_data<T>(), D);
  });
}

}  // namespace moebius::cuda
