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

// Rows of one group, and columns n, n + 1, ... of a product.
struct Place {
  int64_t group;
  Group rows;
  int64_t n;
};

// x [R, inputs], or rows of it, times an image with N outputs.
struct Product {
  const Tensor &x, &rows, &image, &offsets;
  int64_t R, N;
};

// Places of at most `rows` rows, large ones first, for each tile of `columns`.
std::vector<Place> Places(const Product& product, int64_t rows, int64_t columns) {
  std::vector<Place> blocks;
  const std::vector<Group> groups = Groups(product.offsets, product.R);
  for (size_t j = 0; j < groups.size(); ++j) {
    const int64_t num_blocks = CeilDiv(groups[j].size(), rows);
    for (int64_t i = 0; i < num_blocks; ++i) {
      blocks.push_back({static_cast<int64_t>(j), Part(groups[j], i, num_blocks), 0});
    }
  }
  std::ranges::stable_sort(blocks, std::greater(),
                           [](const Place& block) { return block.rows.size(); });
  std::vector<Place> places;
  for (int64_t n = 0; n < product.N; n += columns) {
    for (const Place& block : blocks) places.push_back({block.group, block.rows, n});
  }
  return places;
}

// The places that threads come to last, in parts: so that they end together.
void CutLast(int64_t threads, std::vector<Place>& places) {
  constexpr int64_t kParts = 4, kMinRows = 16;
  if (threads == 1) return;
  const auto rows_of = [](const Place& place) { return place.rows.size(); };
  const Group last = LastItems(places, threads, rows_of);
  std::vector<Place> cut;
  for (int64_t i = 0; i < std::ssize(places); ++i) {
    const auto& [group, rows, n] = places[i];
    const bool is_last = last.begin <= i && i < last.end;
    const int64_t parts = is_last ? std::clamp<int64_t>(rows.size() / kMinRows, 1, kParts) : 1;
    for (int64_t part = 0; part < parts; ++part) cut.push_back({group, Part(rows, part, parts), n});
  }
  places = std::move(cut);
}

// How a product is cut over the threads.
struct ProductCut {
  std::vector<Place> places;
  int64_t columns;
};

// Narrower tiles where there are few rows: so every weight is still read once.
ProductCut CutColumns(const Product& product, int64_t threads, int64_t panel) {
  ProductCut cut = {{}, kMaxColumns};
  cut.places = Places(product, kRowBlock, cut.columns);
  while (cut.columns > 2 * panel && std::ssize(cut.places) < kTilesPerThread * threads) {
    cut.columns /= 2;
    cut.places = Places(product, kRowBlock, cut.columns);
  }
  cut.columns = std::min(cut.columns, RoundUp(product.N, panel));
  CutLast(threads, cut.places);
  return cut;
}

// Smaller blocks of rows where there are few: columns do not depend on the threads.
ProductCut CutRows(const Product& product, int64_t threads, int64_t panel) {
  constexpr int64_t kMinRows = 16;
  const int64_t columns = std::min(kMaxColumns, RoundUp(product.N, panel));
  int64_t rows = kRowBlock;
  ProductCut cut = {Places(product, rows, columns), columns};
  while (std::ssize(cut.places) < kTilesPerThread * threads && rows > kMinRows) {
    rows /= 2;
    cut.places = Places(product, rows, columns);
  }
  CutLast(threads, cut.places);
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
  const int64_t N = product.N;
  const Units units(product.x.dtype(), simd);
  const int64_t num_units = units.Count(product.x.shape()[1]);
  const auto image_of = [&](const Place& place) {
    return ImageOf(product.image, place.group, N, num_units, simd);
  };
  const auto multiply_tile = [&](int64_t i, int64_t next, float* a) {
    const bool goes_on = next >= 0;
    const Place& place = cut.places[i];
    const Place& then = cut.places[goes_on ? next : i];
    const int64_t n = place.n;
    Tile tile = {.rows = place.rows,
                 .n = n,
                 .columns = std::min(cut.columns, N - n),
                 .sums = a + kOperand,
                 .sums_row = cut.columns,
                 .scratch = nullptr};
    if (y != nullptr) {
      tile.sums = y + place.rows.begin * N + n;
      tile.sums_row = N;
    } else {
      tile.scratch = a + kOperand + kRowBlock * cut.columns;
    }
    const TileArgs args = {.x = product.x,
                           .rows_of_x = RowsOf(product.rows),
                           .rows = place.rows,
                           .image = image_of(place),
                           .n = n,
                           .columns = tile.columns,
                           .next_rows = goes_on ? then.rows : Group{0, 0},
                           .next_image = goes_on ? image_of(then) + then.n * num_units : nullptr,
                           .c = tile.sums,
                           .c_row = tile.sums_row,
                           .accumulate = accumulate};
    TileProduct(args, units).Run(a);
    finish(tile);
  };
  const int64_t scratch = kOperand + (y == nullptr ? (kRowBlock + 1) * cut.columns : 0);
  ForFromBothEnds(context, std::ssize(cut.places), scratch, "linear.scratch", multiply_tile);
}

// Calls fn(kernels, T{}) with the rows of `simd` for F32 or BF16; their elements are T.
template <class Fn>
void WithRowsOf(const SimdKernels& simd, DType dtype, const Fn& fn) {
  if (dtype == DType::kF32) return fn(simd.rows, float{});
  fn(simd.rows_bf16, uint16_t{});
}

// h = silu(gate) * y of a tile.
void SwiGluTile(const kernels::LinearArgs& args, const Tile& tile, const SimdKernels& simd) {
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

void Multiply(const kernels::LinearArgs& args, Context& context, const SimdKernels& simd) {
  const auto [R, N] = Dims<2>(args.y);
  const Product product = {args.x, args.rows, args.w, args.offsets, R, N};
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
  const int64_t num_tiles = CeilDiv(F, cut.columns);
  const Tensor products = context.Empty(DType::kF32, {num_tiles, R}, "linear.products");
  MultiplyTiles(product, cut, nullptr, false, context, simd, [&, R = R](const Tile& tile) {
    SwiGluGradientTile(args, tile, products.data<float>() + tile.n / cut.columns * R, simd);
  });
  if (!args.dweights.defined()) return;
  const int64_t num_rows = args.offsets.defined() ? args.offsets.span<int32_t>().back() : R;
  float* const dweights = args.dweights.data<float>();
  std::copy_n(products.data<float>(), num_rows, dweights);
  for (int64_t j = 1; j < num_tiles; ++j) {
    const float* of_tiles = products.data<float>() + j * R;
    for (int64_t r = 0; r < num_rows; ++r) dweights[r] += of_tiles[r];
  }
}

}  // namespace moebius::cpu
