// Attention as kernels read it, on plain and on tensor cores, and what attention_hopper.cu offers
// to attention.cu. Letters and formulas as in kernels/attention.h.
#pragma once

#include <climits>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {

template <class T>
struct AttentionOperands {
  const T *q, *k, *v;
  const int32_t* ids;  // null: one document
  int64_t S, H, G, C;
  int64_t num_chunks, chunk_length, chunk_begin[2];
  float scale;  // 1 / sqrt(C)
};

template <class T>
AttentionOperands<T> OperandsOf(const kernels::AttentionShape& shape, const Tensor& q,
                                const Tensor& k, const Tensor& v, const Tensor& ids) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  return {.q = q.device_data<T>(),
          .k = k.device_data<T>(),
          .v = v.device_data<T>(),
          .ids = ids.device_data<int32_t>(),
          .S = shape.sequence_length,
          .H = shape.num_heads,
          .G = shape.num_kv_heads,
          .C = shape.head_dim,
          .num_chunks = chunks.num_chunks,
          .chunk_length = chunks.length,
          .chunk_begin = {chunks.begin[0], chunks.begin[1]},
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)))};
}

// Consecutive positions of one sequence.
struct Positions {
  int64_t sequence, begin, count;
  int64_t row;  // of the first, in a tensor of queries or of keys

  __device__ int64_t end() const { return begin + count; }
};

// At most `most`: of a chunk, from its query number `first` on; of a sequence, from key `first` on.
template <class T>
__device__ inline Positions QueriesFrom(const AttentionOperands<T>& x, int64_t sequence,
                                        int64_t chunk, int64_t first, int64_t most) {
  return {sequence, (chunk == 0 ? x.chunk_begin[0] : x.chunk_begin[1]) + first,
          min(most, x.chunk_length - first),
          (sequence * x.num_chunks + chunk) * x.chunk_length + first};
}
template <class T>
__device__ inline Positions KeysFrom(const AttentionOperands<T>& x, int64_t sequence, int64_t first,
                                     int64_t most) {
  return {sequence, first, min(most, x.S - first), sequence * x.S + first};
}

// The first key that a query of a tile may see: earlier ones are of earlier documents. The end of
// the queries if there is none. All threads call.
template <class T>
__device__ inline int64_t FirstKey(const AttentionOperands<T>& x, const Positions& queries) {
  if (x.ids == nullptr) return 0;
  const auto smaller = [](auto a, auto b) { return a < b ? a : b; };
  const int32_t* ids = x.ids + queries.sequence * x.S;
  int32_t document = INT_MAX;
  for (int64_t t = queries.begin + threadIdx.x; t < queries.end(); t += blockDim.x) {
    if (ids[t] >= 0) document = smaller(document, ids[t]);
  }
  document = BlockReduce(document, int32_t{INT_MAX}, smaller);
  int64_t first = queries.end();
  for (int64_t t = threadIdx.x; t < first; t += blockDim.x) {
    if (ids[t] >= document) first = t;
  }
  return BlockReduce(first, queries.end(), smaller);
}

// Behind the last position whose query may see a key of a tile. All threads call.
template <class T>
__device__ inline int64_t EndOfQueries(const AttentionOperands<T>& x, const Positions& keys) {
  if (x.ids == nullptr) return x.S;
  const auto larger = [](auto a, auto b) { return a < b ? b : a; };
  const int32_t* ids = x.ids + keys.sequence * x.S;
  int32_t document = -1;
  for (int64_t t = keys.begin + threadIdx.x; t < keys.end(); t += blockDim.x) {
    document = larger(document, ids[t]);
  }
  document = BlockReduce(document, int32_t{-1}, larger);
  int64_t end = 0;
  for (int64_t t = keys.begin + threadIdx.x; t < x.S; t += blockDim.x) {
    if (ids[t] >= 0 && ids[t] <= document) end = t + 1;
  }
  return BlockReduce(end, int64_t{0}, larger);
}

template <class T>
struct Gradient {
  AttentionOperands<T> x;
  const T *y, *dy;
  const float* logsumexp;
  float* delta;  // dy . y of each query of a head
  T *dq, *dk, *dv;
  bool accumulate_q, accumulate_k, accumulate_v;
};

template <class T>
Gradient<T> GradientOf(const kernels::AttentionGradientArgs& args, float* delta) {
  return {.x = OperandsOf<T>(args.shape, args.q, args.k, args.v, args.document_ids),
          .y = args.y.device_data<T>(),
          .dy = args.dy.device_data<T>(),
          .logsumexp = args.logsumexp.device_data<float>(),
          .delta = delta,
          .dq = args.dq.device_data<T>(),
          .dk = args.dk.device_data<T>(),
          .dv = args.dv.device_data<T>(),
          .accumulate_q = args.accumulate_q,
          .accumulate_k = args.accumulate_k,
          .accumulate_v = args.accumulate_v};
}

// Start the same on tensor cores and return true, if the device has those of Hopper and the
// operands suit them: BF16, heads of 64 or 128.
bool AttendOnHopper(const kernels::AttentionArgs& args, Context& ctx);
bool AttentionGradientOnHopper(const kernels::AttentionGradientArgs& args, Context& ctx);

}  // namespace moebius::cuda
