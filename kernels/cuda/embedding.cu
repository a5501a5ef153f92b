// Limited by bandwidth: rows are read and written once. Positions are sorted by the row that they
// name, in two passes over the digits of its number; a row that many name is summed by segments.
#include <cmath>

#include "kernels/cuda/counting_sort.h"
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

// Positions by one of two digits of the rows that they name; those that name none come last.
struct ByDigit {
  Lookup lookup;
  const int32_t* positions;  // null: 0, 1, ...
  int32_t base, divisor;     // the digit is row / divisor % base
  int32_t* sorted;

  __device__ int32_t PositionAt(int64_t i) const {
    return positions == nullptr ? static_cast<int32_t>(i) : positions[i];
  }
  __device__ int32_t Key(int64_t i) const {
    const int64_t row = lookup.RowOf(PositionAt(i));
    return static_cast<int32_t>(lookup.Has(row) ? row : lookup.V) / divisor % base;
  }
  __device__ void Place(int64_t i, int32_t place) const { sorted[place] = PositionAt(i); }
};

// All positions, those of a row together and ascending.
struct Positions {
  const int32_t* sorted;   // [T]
  int32_t *starts, *ends;  // [V]: of the places of a row; of one that no position names, anything
};

__global__ void BoundsKernel(Lookup lookup, Positions positions) {
  const auto row_at = [&](int64_t i) { return lookup.RowOf(positions.sorted[i]); };
  for (int64_t i = FirstIndex(); i < lookup.T; i += IndexStride()) {
    const int64_t row = row_at(i);
    if (!lookup.Has(row)) continue;
    if (i == 0 || row_at(i - 1) != row) positions.starts[row] = static_cast<int32_t>(i);
    if (i + 1 == lookup.T || row_at(i + 1) != row)
      positions.ends[row] = static_cast<int32_t>(i + 1);
  }
}

// Places of a row that are summed at once: a lane holds the position of each. They are counted from
// the row's first place, so that its bits depend on nothing but the row. Segments behind a row's
// first start kSegment or more apart: that at place i has its sum at i / kSegment.
constexpr int64_t kSegment = kWarp;

constexpr int kColumns = 4;                   // of a lane
constexpr int64_t kStrip = kColumns * kWarp;  // columns of a warp

// Calls fn(k, d) for each column d of this lane within strip `strip` of D columns.
template <class Fn>
__device__ void ForColumns(int64_t strip, int64_t D, const Fn& fn) {
  for (int k = 0; k < kColumns; ++k) {
    const int64_t d = strip * kStrip + k * kWarp + LaneIndex();
    if (d < D) fn(k, d);
  }
}

// A warp for each strip of columns at each place; those where a segment starts add it up, the first
// of a row to the row itself.
template <class T>
__global__ void SegmentsKernel(Lookup lookup, Positions positions, const T* dy, float* dw,
                               float* segments) {
  const int64_t D = lookup.D, strips = (D + kStrip - 1) / kStrip;
  const int64_t i = WarpIndex() / strips, strip = WarpIndex() % strips;
  if (i >= lookup.T) return;
  const int64_t row = lookup.RowOf(positions.sorted[i]);
  if (!lookup.Has(row)) return;
  const int64_t start = positions.starts[row], count = min(kSegment, positions.ends[row] - i);
  if ((i - start) % kSegment != 0) return;
  const int32_t position = LaneIndex() < count ? positions.sorted[i + LaneIndex()] : 0;
  float* const sum = i == start ? dw + row * D : segments + i / kSegment * D;
  float sums[kColumns] = {};
  if (i == start) ForColumns(strip, D, [&](int k, int64_t d) { sums[k] = sum[d]; });
  for (int j = 0; j < count; ++j) {
    const T* const dy_j = dy + __shfl_sync(0xFFFFFFFFu, position, j) * D;
    ForColumns(strip, D, [&](int k, int64_t d) { sums[k] += Get(dy_j[d]); });
  }
  ForColumns(strip, D, [&](int k, int64_t d) { sum[d] = sums[k]; });
}

// A warp for each strip of columns at each place in `segments`; those where a row has its second
// segment add it and those behind it to the row. That row has the first place that belongs to it.
__global__ void AddSegmentsKernel(Lookup lookup, Positions positions, const float* segments,
                                  float* dw) {
  const int64_t D = lookup.D, strips = (D + kStrip - 1) / kStrip;
  const int64_t slot = WarpIndex() / strips, strip = WarpIndex() % strips;
  if (slot * kSegment >= lookup.T) return;
  const int64_t row = lookup.RowOf(positions.sorted[slot * kSegment]);
  if (!lookup.Has(row)) return;
  const int64_t second = positions.starts[row] + kSegment, end = positions.ends[row];
  if (second / kSegment != slot || second >= end) return;
  const int64_t count = (end - second + kSegment - 1) / kSegment;
  float sums[kColumns] = {};
  ForColumns(strip, D, [&](int k, int64_t d) { sums[k] = dw[row * D + d]; });
#pragma unroll 8  // segments are read together
  for (int64_t j = 0; j < count; ++j) {
    const float* const segment = segments + (slot + j) * D;
    ForColumns(strip, D, [&](int k, int64_t d) { sums[k] += segment[d]; });
  }
  ForColumns(strip, D, [&](int k, int64_t d) { dw[row * D + d] = sums[k]; });
}

// From position to position in the order of rows: by the low digit, then by the high one.
void SortByRow(const Lookup& lookup, const Tensor& sorted, Context& ctx) {
  const int64_t T = lookup.T;
  const auto base = static_cast<int32_t>(std::ceil(std::sqrt(lookup.V + 1)));
  const Tensor by_low_digit = ctx.Empty(DType::kI32, {T}, "embedding.positions");
  const auto sort = [&](const int32_t* from, int32_t divisor, const Tensor& to) {
    const ByDigit items = {lookup, from, base, divisor, to.device_data<int32_t>()};
    PlaceItems(items, T, FirstPlaces(items, T, base, ctx), ctx);
  };
  sort(nullptr, 1, by_low_digit);
  sort(by_low_digit.device_data<int32_t>(), base, sorted);
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
  const int64_t T = lookup.T, strips = (lookup.D + kStrip - 1) / kStrip;
  const int64_t slots = (T + kSegment - 1) / kSegment;
  float* const dw = args.dw.device_data<float>();
  if (!args.accumulate) ctx.accelerator()->Clear(dw, args.dw.bytes());
  const Tensor sorted = ctx.Empty(DType::kI32, {T}, "embedding.positions");
  const Tensor bounds = ctx.Empty(DType::kI32, {2, lookup.V}, "embedding.bounds");
  const Tensor segments = ctx.Empty(DType::kF32, {slots, lookup.D}, "embedding.segments");
  const Positions positions = {.sorted = sorted.device_data<int32_t>(),
                               .starts = bounds.device_data<int32_t>(),
                               .ends = bounds.device_data<int32_t>() + lookup.V};
  SortByRow(lookup, sorted, ctx);
  Launch(BoundsKernel, ForElements(T), ctx, lookup, positions);
  WithType(args.dy.dtype(), [&]<class Element>(Element) {
    Launch(SegmentsKernel<Element>, WarpForEach(T * strips), ctx, lookup, positions,
           args.dy.device_data<Element>(), dw, segments.device_data<float>());
  });
  Launch(AddSegmentsKernel, WarpForEach(slots * strips), ctx, lookup, positions,
         segments.device_data<float>(), dw);
}

}  // namespace moebius::cuda
