// Limited by arithmetic: products of 64 x 64 tiles, in FP32 on the plain cores, of F32, of odd
// widths and on other chips than Hopper; linear_hopper.cu has the others. Weights are read as they
// are: an image in any format has the weight's shape.
#include <type_traits>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/tiles.h"

namespace moebius::cuda {
namespace {

// The rows of one group, of those in front of it.
struct RowRange {
  int64_t group, begin, end;
};

// Tiles of rows belong to one group each. Group j has those from offsets[j] / kTile + j on, which
// are enough, and which the host can count without offsets; some are empty. `offsets` null: one
// group.
inline int64_t NumRowTiles(int64_t rows, int64_t groups) { return rows / kTile + groups; }

__device__ RowRange RowTile(int64_t tile, const int32_t* offsets, int64_t groups, int64_t rows) {
  int64_t group = 0, beyond = offsets == nullptr ? 1 : groups;
  while (beyond - group > 1) {
    const int64_t middle = (group + beyond) / 2;
    (offsets[middle] / kTile + middle <= tile ? group : beyond) = middle;
  }
  const int64_t first = offsets == nullptr ? 0 : offsets[group];
  const int64_t end = offsets == nullptr ? rows : offsets[group + 1];
  const int64_t begin = first + (tile - first / kTile - group) * kTile;
  return {group, begin, min(begin + kTile, end)};
}

// `kWeights`: kDepth where the inputs of a weight lie side by side ([N, K] for y = w x), kTile
// where its outputs do (for w^T x).
template <Contiguous kWeights, class T, class Y>
__global__ void ProductKernel(Product<T, Y> p) {
  const int64_t column_tiles = NumTiles(p.columns);
  const RowRange range = RowTile(blockIdx.x / column_tiles, p.offsets, p.num_groups, p.num_rows);
  if (range.begin >= range.end) return;
  const int64_t n0 = blockIdx.x % column_tiles * kTile;
  const T* const w = p.w + range.group * p.w_group;
  TileSums sums = {};
  AddProducts<Contiguous::kDepth, kWeights>(
      p.inputs,
      [&](int m, int64_t k) {
        const int64_t r = range.begin + m;
        return r < range.end ? Get(p.x[RowAt(p.rows, r) * p.inputs + k]) : 0.0f;
      },
      [&](int n, int64_t k) {
        if (n0 + n >= p.columns) return 0.0f;
        return Get(kWeights == Contiguous::kDepth ? w[(n0 + n) * p.w_stride + k]
                                                  : w[k * p.w_stride + n0 + n]);
      },
      sums);
  for (int i = 0; i < kEach; ++i) {
    const int64_t r = range.begin + TileRow(i);
    for (int j = 0; j < kEach; ++j) {
      const int64_t n = n0 + TileColumn(j);
      if (r >= range.end || n >= p.columns) continue;
      const int64_t at = r * p.y_stride + n;
      Put(p.y[at], sums[i][j], p.accumulate);
      if (p.h == nullptr) continue;
      const float gate = Get(p.gate[at]);
      Put(p.h[at], gate * Logistic(gate) * Get(p.y[at]));
    }
  }
}

// A tile of dw of one group: sums over its rows, in order.
template <class T>
__global__ void WeightGradientKernel(WeightGradient<T> p) {
  const int64_t n_tiles = NumTiles(p.N), k_tiles = NumTiles(p.K);
  const int64_t group = blockIdx.x / (n_tiles * k_tiles);
  const int64_t n0 = blockIdx.x / k_tiles % n_tiles * kTile, k0 = blockIdx.x % k_tiles * kTile;
  const int64_t begin = p.offsets == nullptr ? 0 : p.offsets[group];
  const int64_t end = p.offsets == nullptr ? p.num_rows : p.offsets[group + 1];
  TileSums sums = {};
  AddProducts<Contiguous::kTile, Contiguous::kTile>(
      end - begin,
      [&](int n, int64_t r) {
        return n0 + n < p.N ? Get(p.dy[RowAt(p.dy_rows, begin + r) * p.N + n0 + n]) : 0.0f;
      },
      [&](int k, int64_t r) {
        return k0 + k < p.K ? Get(p.x[RowAt(p.x_rows, begin + r) * p.K + k0 + k]) : 0.0f;
      },
      sums);
  for (int i = 0; i < kEach; ++i) {
    const int64_t n = n0 + TileRow(i);
    for (int j = 0; j < kEach; ++j) {
      const int64_t k = k0 + TileColumn(j);
      if (n < p.N && k < p.K) Put(p.dw[(group * p.N + n) * p.K + k], sums[i][j], p.accumulate);
    }
  }
}

// Columns of y [T, N] (+)= sums of products [R, columns] over the rows of each token. A block has a
// token and kSumColumns of the columns; its threads search the groups for rows of the token.
constexpr int kSumThreads = 128, kSumEach = 4, kSumColumns = kSumThreads * kSumEach;

template <class Y>
struct RowSums {
  const float *products, *weights;
  const int32_t *rows, *offsets;
  Y* y;
  int64_t num_groups, columns, y_stride;
  bool accumulate;
};

// The first of rows begin .. end - 1, which ascend, whose token is `token` or a later one.
__device__ int32_t FirstRow(const int32_t* rows, int32_t begin, int32_t end, int64_t token) {
  while (begin < end) {
    const int32_t middle = begin + (end - begin) / 2;
    if (rows[middle] < token) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

template <class Y>
__global__ void RowSumsKernel(RowSums<Y> p) {
  __shared__ int32_t begin[kSumThreads], end[kSumThreads];  // of groups first, first + 1, ...
  const int64_t column_tiles = (p.columns + kSumColumns - 1) / kSumColumns;
  const int64_t token = blockIdx.x / column_tiles;
  const int64_t n0 = blockIdx.x % column_tiles * kSumColumns + threadIdx.x;
  float sums[kSumEach] = {};
  for (int64_t first = 0; first < p.num_groups; first += kSumThreads) {
    const int64_t group = first + threadIdx.x;
    __syncthreads();  // what was found before has been read
    if (group < p.num_groups) {
      const int32_t last = p.offsets[group + 1];
      begin[threadIdx.x] = FirstRow(p.rows, p.offsets[group], last, token);
      end[threadIdx.x] = FirstRow(p.rows, begin[threadIdx.x], last, token + 1);
    }
    __syncthreads();
    for (int j = 0; j < kSumThreads && first + j < p.num_groups; ++j) {
      for (int64_t r = begin[j]; r < end[j]; ++r) {
        const float weight = p.weights == nullptr ? 1.0f : p.weights[r];
        for (int i = 0; i < kSumEach; ++i) {
          const int64_t n = n0 + i * kSumThreads;
          if (n < p.columns) sums[i] += weight * p.products[r * p.columns + n];
        }
      }
    }
  }
  for (int i = 0; i < kSumEach; ++i) {
    const int64_t n = n0 + i * kSumThreads;
    if (n < p.columns) Put(p.y[token * p.y_stride + n], sums[i], p.accumulate);
  }
}

// Calls fn(T{}, Y{}) with the types of operands and of a result.
template <class Fn>
void WithTypes(DType operand, DType result, const Fn& fn) {
  if (operand == DType::kF32) return fn(float{}, float{});
  WithType(result, [&]<class Y>(Y) { fn(BF16{}, Y{}); });
}

int64_t NumGroups(const Tensor& offsets) { return offsets.defined() ? offsets.size() - 1 : 1; }

template <class T, class Y>
void Multiply(const Product<T, Y>& product, bool transposed, Context& ctx) {
  if constexpr (std::is_same_v<T, BF16>) {
    if (MultiplyOnHopper(product, transposed, ctx)) return;
  }
  const int64_t tiles =
      NumRowTiles(product.num_rows, product.num_groups) * NumTiles(product.columns);
  const auto kernel =
      transposed ? ProductKernel<Contiguous::kTile, T, Y> : ProductKernel<Contiguous::kDepth, T, Y>;
  Launch(kernel, BlockForEach(tiles, kTileThreads), ctx, product);
}

// All of it but where the result goes.
template <class T, class Y>
Product<T, Y> ProductOf(const kernels::LinearArgs& args, const Shape& result, bool transposed) {
  const int64_t inputs = args.x.shape()[1], outputs = result[1];
  return {.x = args.x.device_data<T>(),
          .rows = args.rows.device_data<int32_t>(),
          .offsets = args.offsets.device_data<int32_t>(),
          .w = args.w.device_data<T>(),
          .w_group = inputs * outputs,
          .w_stride = transposed ? outputs : inputs,
          .y = nullptr,
          .num_rows = result[0],
          .num_groups = NumGroups(args.offsets),
          .inputs = inputs,
          .columns = outputs,
          .y_stride = outputs,
          .accumulate = args.accumulate};
}

void Multiply(const kernels::LinearArgs& args, bool transposed, Context& ctx) {
  WithTypes(args.x.dtype(), args.y.dtype(), [&]<class T, class Y>(T, Y) {
    auto product = ProductOf<T, Y>(args, args.y.shape(), transposed);
    product.y = args.y.device_data<Y>();
    product.gate = args.gate.device_data<T>();
    product.h = args.h.device_data<T>();
    Multiply(product, transposed, ctx);
  });
}

// Of columns n, n + 1, ... of a sum.
template <class T>
void MultiplyColumns(const kernels::LinearSumArgs& args, int64_t n, const Tensor& products,
                     Context& ctx) {
  const int64_t inputs = args.x.shape()[1], outputs = args.y.shape()[1];
  const bool transposed = args.format == WeightFormat::kPackedTransposed;
  Multiply(Product<T, float>{.x = args.x.device_data<T>(),
                             .rows = nullptr,
                             .offsets = args.offsets.device_data<int32_t>(),
                             .w = args.w.device_data<T>() + (transposed ? n : n * inputs),
                             .w_group = inputs * outputs,
                             .w_stride = transposed ? outputs : inputs,
                             .y = products.device_data<float>(),
                             .num_rows = products.shape()[0],
                             .num_groups = NumGroups(args.offsets),
                             .inputs = inputs,
                             .columns = products.shape()[1],
                             .y_stride = products.shape()[1],
                             .accumulate = false},
           transposed, ctx);
}

template <class Y>
void SumRows(const kernels::LinearSumArgs& args, int64_t n, const Tensor& products, Context& ctx) {
  const auto [num_tokens, outputs] = Dims<2>(args.y);
  const int64_t columns = products.shape()[1];
  const RowSums<Y> sums = {.products = products.device_data<float>(),
                           .weights = args.weights.device_data<float>(),
                           .rows = args.rows.device_data<int32_t>(),
                           .offsets = args.offsets.device_data<int32_t>(),
                           .y = args.y.device_data<Y>() + n,
                           .num_groups = NumGroups(args.offsets),
                           .columns = columns,
                           .y_stride = outputs,
                           .accumulate = args.accumulate};
  const int64_t blocks = num_tokens * ((columns + kSumColumns - 1) / kSumColumns);
  Launch(RowSumsKernel<Y>, BlockForEach(blocks, kSumThreads), ctx, sums);
}

}  // namespace

void PackWeight(const Tensor& w, WeightFormat, const Tensor& image, Context& ctx) {
  Cast({.x = w, .y = image}, ctx);
}

void Linear(const kernels::LinearArgs& args, Context& ctx) { Multiply(args, false, ctx); }

void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& ctx) {
  Multiply({.x = args.dy,
            .w = args.w,
            .offsets = args.offsets,
            .y = args.dx,
            .accumulate = args.accumulate,
            .rows = args.rows},
           true, ctx);
}

void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& ctx) {
  kernels::LinearArgs product = {
      .x = args.dy, .w = args.w, .offsets = args.offsets, .y = {}, .rows = args.rows};
  if (args.dy.dtype() == DType::kBF16 &&
      SwiGluGradientOnHopper(ProductOf<BF16, float>(product, args.gate.shape(), true), args, ctx)) {
    return;
  }
  product.y = ctx.Empty(DType::kF32, args.gate.shape(), "linear.dx");
  Multiply(product, true, ctx);
  WeightedSwiGluGradient(args, product.y, ctx);
}

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& ctx) {
  const int64_t N = args.dy.shape()[1], K = args.x.shape()[1];
  const int64_t tiles = NumGroups(args.offsets) * NumTiles(N) * NumTiles(K);
  WithType(args.x.dtype(), [&]<class T>(T) {
    const WeightGradient<T> gradient = {
        .dy = args.dy.device_data<T>(),
        .x = args.x.device_data<T>(),
        .dy_rows = args.dy_rows.device_data<int32_t>(),
        .x_rows = args.x_rows.device_data<int32_t>(),
        .offsets = args.offsets.device_data<int32_t>(),
        .dw = args.dw.device_data<float>(),
        .num_rows = args.dy_rows.defined() ? args.dy_rows.size() : args.dy.shape()[0],
        .num_groups = NumGroups(args.offsets),
        .N = N,
        .K = K,
        .accumulate = args.accumulate};
    if constexpr (std::is_same_v<T, BF16>) {
      if (AddGradientOnHopper(gradient, ctx)) return;
    }
    Launch(WeightGradientKernel<T>, BlockForEach(tiles, kTileThreads), ctx, gradient);
  });
}

// Some columns at a time, two wide tiles at least: products of all rows with these, then their
// sums.
void LinearSum(const kernels::LinearSumArgs& args, Context& ctx) {
  const int64_t R = std::max<int64_t>(args.x.shape()[0], 1), N = args.y.shape()[1];
  const int64_t at_once = std::max<int64_t>(ctx.chunk_elements() / R / kTile, 8) * kTile;
  for (int64_t n = 0; n < N; n += at_once) {
    const Tensor products =
        ctx.Empty(DType::kF32, {args.x.shape()[0], std::min(at_once, N - n)}, "linear.scratch");
    WithType(args.x.dtype(), [&]<class T>(T) { MultiplyColumns<T>(args, n, products, ctx); });
    WithType(args.y.dtype(), [&]<class Y>(Y) { SumRows<Y>(args, n, products, ctx); });
  }
}

}  // namespace moebius::cuda
