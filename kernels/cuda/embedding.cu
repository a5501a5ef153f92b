// Limited by bandwidth: rows are read and written once. A row of the gradient is summed in order of
// its tokens, so one token that fills a batch is limited by latency.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// The rows of a table [V, D] that tokens [T] name.
struct Lookup {
  const int32_t* tokens;
  int64_t T, V, D, first;

  __device__ int64_t RowOf(int64_t t) const { return tokens[t] - first; }
  __device__ bool Has(int64_t row) const { return 0 <= row && row < V; }
};

Lookup LookupOf(const Tensor& tokens, const kernels::VocabularyRange& range, const Tensor& w) {
  const auto [V, D] = Dims<2>(w);
  return {.tokens = tokens.device_data<int32_t>(),
          .T = tokens.size(),
          .V = V,
          .D = D,
          .first = range.first};
}

// A warp for each token.
template <class T>
__global__ void EmbeddingKernel(Lookup lookup, const float* w, T* y) {
  const int64_t t = WarpIndex(), D = lookup.D;
  if (t >= lookup.T) return;
  const int64_t row = lookup.RowOf(t);
  const bool has_row = lookup.Has(row);
  for (int64_t d = LaneIndex(); d < D; d += kWarp) {
    Put(y[t * D + d], has_row ? w[row * D + d] : 0.0f);
  }
}

// Positions t by row, and ascending within a row: those of row v are `ordered` from starts[v] on,
// counts[v] of them. Segments of rows lie in any order, which no result depends on.
struct Positions {
  int32_t *counts, *starts, *filled;  // [V]; counts and filled begin as zeros
  int32_t* total;                     // of all rows; begins as zero
  int32_t *found, *ordered;           // [T]; `found`: in any order within a row
};

__global__ void CountKernel(Lookup lookup, Positions positions) {
  for (int64_t t = FirstIndex(); t < lookup.T; t += IndexStride()) {
    const int64_t row = lookup.RowOf(t);
    if (lookup.Has(row)) atomicAdd(&positions.counts[row], 1);
  }
}

__global__ void StartKernel(Lookup lookup, Positions positions) {
  for (int64_t row = FirstIndex(); row < lookup.V; row += IndexStride()) {
    const int32_t count = positions.counts[row];
    if (count > 0) positions.starts[row] = atomicAdd(positions.total, count);
  }
}

__global__ void FindKernel(Lookup lookup, Positions positions) {
  for (int64_t t = FirstIndex(); t < lookup.T; t += IndexStride()) {
    const int64_t row = lookup.RowOf(t);
    if (!lookup.Has(row)) continue;
    const int32_t place = positions.starts[row] + atomicAdd(&positions.filled[row], 1);
    positions.found[place] = static_cast<int32_t>(t);
  }
}

// A position's place in its row is the number of those before it.
__global__ void OrderKernel(Lookup lookup, Positions positions) {
  for (int64_t i = FirstIndex(); i < *positions.total; i += IndexStride()) {
    const int32_t t = positions.found[i];
    const int64_t row = lookup.RowOf(t);
    const int32_t begin = positions.starts[row], end = begin + positions.counts[row];
    int32_t place = begin;
    for (int32_t j = begin; j < end; ++j) place += positions.found[j] < t;
    positions.ordered[place] = t;
  }
}

constexpr int kColumns = 4;  // of a lane

// A warp for each strip of columns at each place; those where a row starts add its positions up.
template <class T>
__global__ void AddRowsKernel(Lookup lookup, Positions positions, const T* dy, float* dw) {
  const int64_t D = lookup.D, strips = (D + kColumns * kWarp - 1) / (kColumns * kWarp);
  const int64_t i = WarpIndex() / strips, strip = WarpIndex() % strips;
  if (i >= *positions.total) return;
  const int64_t row = lookup.RowOf(positions.ordered[i]);
  if (positions.starts[row] != i) return;
  const int64_t begin = strip * kColumns * kWarp + LaneIndex(), end = i + positions.counts[row];
  float sums[kColumns];
  for (int k = 0; k < kColumns; ++k) {
    const int64_t d = begin + k * kWarp;
    sums[k] = d < D ? dw[row * D + d] : 0.0f;
  }
  for (int64_t j = i; j < end; ++j) {
    const T* dy_t = dy + positions.ordered[j] * D;
    for (int k = 0; k < kColumns; ++k) {
      const int64_t d = begin + k * kWarp;
      if (d < D) sums[k] += Get(dy_t[d]);
    }
  }
  for (int k = 0; k < kColumns; ++k) {
    const int64_t d = begin + k * kWarp;
    if (d < D) dw[row * D + d] = sums[k];
  }
}

}  // namespace

void Embedding(const kernels::EmbeddingArgs& args, Context& ctx) {
  const Lookup lookup = LookupOf(args.tokens, args.range, args.w);
  WithType(args.y.dtype(), [&]<class T>(T) {
    Launch(EmbeddingKernel<T>, WarpForEach(lookup.T), ctx, lookup, args.w.device_data<float>(),
           args.y.device_data<T>());
  });
}

void EmbeddingGradient(const kernels::EmbeddingGradientArgs& args, Context& ctx) {
  const Lookup lookup = LookupOf(args.tokens, args.range, args.dw);
  const int64_t T = lookup.T, V = lookup.V;
  const Tensor zeros = ctx.Zeros(DType::kI32, {2 * V + 1}, "embedding.counts");
  const Tensor starts = ctx.Empty(DType::kI32, {V}, "embedding.starts");
  const Tensor places = ctx.Empty(DType::kI32, {2 * T}, "embedding.positions");
  int32_t *const zero = zeros.device_data<int32_t>(), *const place = places.device_data<int32_t>();
  const Positions positions = {.counts = zero,
                               .starts = starts.device_data<int32_t>(),
                               .filled = zero + V,
                               .total = zero + 2 * V,
                               .found = place,
                               .ordered = place + T};
  Launch(CountKernel, ForElements(T), ctx, lookup, positions);
  Launch(StartKernel, ForElements(V), ctx, lookup, positions);
  Launch(FindKernel, ForElements(T), ctx, lookup, positions);
  Launch(OrderKernel, ForElements(T), ctx, lookup, positions);
  float* const dw = args.dw.device_data<float>();
  if (!args.accumulate) ctx.accelerator()->Clear(dw, args.dw.bytes());
  const int64_t strips = (lookup.D + kColumns * kWarp - 1) / (kColumns * kWarp);
  WithType(args.dy.dtype(), [&]<class Element>(Element) {
    Launch(AddRowsKernel<Element>, WarpForEach(T * strips), ctx, lookup, positions,
           args.dy.device_data<Element>(), dw);
  });
}

}  // namespace moebius::cuda
