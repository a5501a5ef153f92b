#include "kernels/cpu/linear.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTilesPerThread = 2;  // so that threads end together

struct RowBlock {
  int64_t group;
  Group rows;
};

// Of at most `most` rows, large blocks first.
std::vector<RowBlock> RowBlocks(const std::vector<Group>& groups, int64_t most) {
  std::vector<RowBlock> blocks;
  for (size_t j = 0; j < groups.size(); ++j) {
    const int64_t begin = groups[j].begin, size = groups[j].size();
    const int64_t num_blocks = CeilDiv(size, most);
    for (int64_t i = 0; i < num_blocks; ++i) {
      blocks.push_back({static_cast<int64_t>(j),
                        {begin + size * i / num_blocks, begin + size * (i + 1) / num_blocks}});
    }
  }
  std::ranges::stable_sort(blocks, std::greater(),
                           [](const RowBlock& block) { return block.rows.size(); });
  return blocks;
}

// x [R, inputs], or rows of it, times an image with N outputs.
struct Product {
  const Tensor &x, &rows, &image, &offsets;
  int64_t R, N;
};

// How a product is cut over the threads: blocks of rows, and tiles of columns.
struct ProductCut {
  int64_t num_tiles() const { return std::ssize(blocks) * across; }

  std::vector<RowBlock> blocks;
  int64_t columns, across;
};

// Narrower tiles where there are few rows: so every weight is still read once.
ProductCut CutColumns(const Product& product, int64_t threads, int64_t panel) {
  const int64_t N = product.N;
  ProductCut cut = {RowBlocks(Groups(product.offsets, product.R), kRowBlock), kMaxColumns, 0};
  const int64_t enough = kTilesPerThread * threads, num_blocks = std::ssize(cut.blocks);
  while (cut.columns > 2 * panel && num_blocks * CeilDiv(N, cut.columns) < enough) cut.columns /= 2;
  cut.columns = std::min(cut.columns, RoundUp(N, panel));
  cut.across = CeilDiv(N, cut.columns);
  return cut;
}

// Smaller blocks of rows where there are few: columns do not depend on the threads.
ProductCut CutRows(const Product& product, int64_t threads, int64_t panel) {
  constexpr int64_t kMinRows = 16;
  const std::vector<Group> groups = Groups(product.offsets, product.R);
  const int64_t columns = std::min(kMaxColumns, RoundUp(product.N, panel));
  int64_t rows = kRowBlock;
  ProductCut cut = {RowBlocks(groups, rows), columns, CeilDiv(product.N, columns)};
  while (cut.num_tiles() < kTilesPerThread * threads && rows > kMinRows) {
    rows /= 2;
    cut.blocks = RowBlocks(groups, rows);
  }
  return cut;
}

// A tile of a product, while it is in a cache.
struct Tile {
  Group rows;
  int64_t n, columns;
  float* sums;  // of row rows.begin and column n
  int64_t sums_row;
  float* scratch;  // a row of floats, unless sums are where the result is
};

// Calls finish(tile) for every tile of the product. Sums stand in y [R, N], where they may be added
// to what is there, or, if that is null, in scratch.
template <class Finish>
void MultiplyTiles(const Product& product, const ProductCut& cut, float* y, bool accumulate,
                   Context& context, const SimdKernels& simd, const Finish& finish) {
  const int64_t N = product.N, num_blocks = std::ssize(cut.blocks);
  const Units units(product.x.dtype(), simd);
  const int64_t num_units = units.Count(product.x.shape()[1]);
  const auto image_of = [&](const RowBlock& block) {
    return ImageOf(product.image, block.group, N, num_units, simd);
  };
  const auto multiply_tile = [&](int64_t i, int64_t next, float* a) {
    const bool goes_on = next >= 0;
    const RowBlock& block = cut.blocks[i % num_blocks];
    const RowBlock& then = cut.blocks[goes_on ? next % num_blocks : 0];
    const int64_t n = i / num_blocks * cut.columns;
    Tile tile = {.rows = block.rows,
                 .n = n,
                 .columns = std::min(cut.columns, N - n),
                 .sums = a + kOperand,
                 .sums_row = cut.columns,
                 .scratch = nullptr};
    if (y != nullptr) {
      tile.sums = y + block.rows.begin * N + n;
      tile.sums_row = N;
    } else {
      tile.scratch = a + kOperand + kRowBlock * cut.columns;
    }
    const TileArgs args = {
        .x = product.x,
        .rows_of_x = RowsOf(product.rows),
        .rows = block.rows,
        .image = image_of(block),
        .n = n,
        .columns = tile.columns,
        .next_rows = goes_on ? then.rows : Group{0, 0},
        .next_image =
            goes_on ? image_of(then) + next / num_blocks * cut.columns * num_units : nullptr,
        .c = tile.sums,
        .c_row = tile.sums_row,
        .accumulate = accumulate};
    TileProduct(args, units).Run(a);
    finish(tile);
  };
  const int64_t scratch = kOperand + (y == nullptr ? (kRowBlock + 1) * cut.columns : 0);
  ForFromBothEnds(context, cut.num_tiles(), scratch, "linear.scratch", multiply_tile);
}

// Calls fn(kernels, T{}) with the rows of `simd` for F32 or BF16; their elements are T.
template <class Fn>
void WithRowsOf(const SimdKernels& simd, DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(simd.rows, float{});
  fn(simd.rows_bf16, uint16_t{});
}

// h = silu(gate) * y of a tile.
void SwiGluTile(const MultiplyArgs& args, const Tile& tile, const SimdKernels& simd) {
  WithRowsOf(simd, args.y.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    for (int64_t r = tile.rows.begin; r < tile.rows.end; ++r) {
      const int64_t i = r * args.y.shape()[1] + tile.n;
      kernels.swiglu(At<T>(args.gate, i), At<T>(args.y, i), At<T>(args.h, i), Write::kReplace,
                     tile.columns);
    }
  });
}

// What a tile of w^T dy means for gate and up. products[r]: dweights' part by the tile's columns.
void SwiGluGradientTile(const kernels::LinearSwiGluGradientArgs& args, const Tile& tile,
                        float* products, const SimdKernels& simd) {
  WithRowsOf(simd, args.gate.dtype(), [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    const float* sums = tile.sums;
    for (int64_t r = tile.rows.begin; r < tile.rows.end; ++r, sums += tile.sums_row) {
      const int64_t i = r * args.gate.shape()[1] + tile.n;
      products[r] = kernels.weighted_swiglu_gradient(
          {.gate = At<T>(args.gate, i),
           .up = At<T>(args.up, i),
           .product = sums,
           .weight = args.weights.defined() ? args.weights.data<float>()[r] : 1,
           .dgate = At<T>(args.dgate, i),
           .dup = At<T>(args.dup, i),
           .h = At<T>(args.h, i)},
          tile.columns);
    }
  });
}

}  // namespace

void Multiply(const MultiplyArgs& args, Context& context, const SimdKernels& simd) {
  const auto [R, N] = Dims<2>(args.y);
  const Product product = {args.x, args.rows, args.image, args.offsets, R, N};
  const ProductCut cut = CutColumns(product, context.pool().num_threads(), simd.panel);
  const bool narrow = args.y.dtype() == DType::kBF16;
  float* const y = narrow ? nullptr : args.y.data<float>();
  const auto finish = [&, N = N](const Tile& tile) {
    if (narrow) {
      NarrowRows({.sums = tile.sums,
                  .rows = tile.rows.size(),
                  .columns = tile.columns,
                  .sums_row = tile.sums_row,
                  .y = reinterpret_cast<uint16_t*>(args.y.raw()) + tile.rows.begin * N + tile.n,
                  .y_row = N,
                  .accumulate = args.accumulate,
                  .before = tile.scratch},
                 simd);
    }
    if (args.h.defined()) SwiGluTile(args, tile, simd);
  };
  MultiplyTiles(product, cut, y, args.accumulate && !narrow, context, simd, finish);
}

void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& context,
                          const SimdKernels& simd) {
  const auto [R, F] = Dims<2>(args.gate);
  const Product product = {args.dy, args.rows, args.w, args.offsets, R, F};
  const ProductCut cut = CutRows(product, context.pool().num_threads(), simd.panel);
  const Tensor products = context.Empty(DType::kF32, {cut.across, R}, "linear.products");
  MultiplyTiles(product, cut, nullptr, false, context, simd, [&, R = R](const Tile& tile) {
    SwiGluGradientTile(args, tile, products.data<float>() + tile.n / cut.columns * R, simd);
  });
  if (!args.dweights.defined()) return;
  float* const dweights = args.dweights.data<float>();
  std::copy_n(products.data<float>(), R, dweights);
  for (int64_t j = 1; j < cut.across; ++j) {
    const float* of_tiles = products.data<float>() + j * R;
    for (int64_t r = 0; r < R; ++r) dweights[r] += of_tiles[r];
  }
}

}  // namespace moebius::cpu
