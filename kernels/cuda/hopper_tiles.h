// Which tiles a product of linear_hopper.cu has, and the kernel that walks over them: a Tiles says
// how many there are, where each lies, what to copy for it, and what becomes of its sums. None of
// it is known to the host, which does not read offsets.
#pragma once

#include "kernels/cuda/hopper_pipeline.h"
#include "kernels/cuda/hopper_sums.h"
#include "kernels/cuda/products.h"

namespace moebius::cuda {

// Tiles that run at the same time share rows and columns in L2: of a grid of tiles, number `index`
// in bands of kBand rows, column by column.
struct TilePlace {
  int row, column;
};
__device__ inline TilePlace Walk(int index, int rows, int columns) {
  constexpr int kBand = 16;
  const int band = index / (kBand * columns), within = index % (kBand * columns);
  const int rows_of_band = min(kBand, rows - band * kBand);
  return {band * kBand + within % rows_of_band, within / rows_of_band};
}

__host__ __device__ constexpr int64_t Ceil(int64_t n, int64_t tile) {
  return (n + tile - 1) / tile;
}

// Tiles of y. A row of tiles belongs to one group: `table` has how many there are before each.
// `Result` is one of hopper_sums.h.
template <int kColumns_, bool kTransposedW, class Y, class Result>
struct ProductTiles {
  static constexpr int kColumns = kColumns_;
  static constexpr bool kTransposedA = false, kTransposedB = kTransposedW;

  struct Tile {
    int group, begin, end;  // rows
    int column, depth;
  };

  // By the first warp.
  __device__ void Plan(int32_t* table) const {
    int32_t before = 0;
#pragma unroll 4  // offsets are read together
    for (int first = 0; first < p.num_groups; first += kWarp) {
      const int group = first + LaneIndex();
      int32_t tiles = group < p.num_groups ? RowTiles(End(group) - Begin(group)) : 0;
      for (int lanes = 1; lanes < kWarp; lanes *= 2) {
        const int32_t others = __shfl_up_sync(0xFFFFFFFFu, tiles, lanes);
        if (LaneIndex() >= lanes) tiles += others;
      }
      if (group < p.num_groups) table[group + 1] = before + tiles;
      before += __shfl_sync(0xFFFFFFFFu, tiles, kWarp - 1);
    }
    if (LaneIndex() == 0) table[0] = 0;
  }
  __device__ int Begin(int group) const { return p.offsets == nullptr ? 0 : p.offsets[group]; }
  __device__ int End(int group) const {
    return p.offsets == nullptr ? static_cast<int>(p.num_rows) : p.offsets[group + 1];
  }
  static __device__ int RowTiles(int rows) { return (rows + kHopperRows - 1) / kHopperRows; }
  __device__ int ColumnTiles() const { return static_cast<int>(Ceil(p.columns, kColumns)); }

  __device__ int NumTiles(const int32_t* table) const {
    return table[p.num_groups] * ColumnTiles();
  }
  __device__ Tile At(int index, const int32_t* table) const {
    const TilePlace place = Walk(index, table[p.num_groups], ColumnTiles());
    int group = 0, beyond = static_cast<int>(p.num_groups);
    while (beyond - group > 1) {
      const int middle = (group + beyond) / 2;
      (table[middle] <= place.row ? group : beyond) = middle;
    }
    return {group, Begin(group) + (place.row - table[group]) * kHopperRows, End(group),
            place.column * kColumns, static_cast<int>(p.inputs)};
  }

  __device__ auto A(const Tile& tile) const {
    return RowSlices<kHopperRows>(p.x, p.inputs, p.rows, tile.begin, tile.end, tile.depth);
  }
  __device__ auto B(const Tile& tile) const {
    const BF16* const w = p.w + tile.group * p.w_group;
    if constexpr (kTransposedW) {
      return ColumnSlices<kColumns>(w, p.w_stride, nullptr, 0, tile.depth, tile.column, p.columns);
    } else {
      return RowSlices<kColumns>(w, p.w_stride, nullptr, tile.column, p.columns, tile.depth);
    }
  }

  __device__ __forceinline__ void Store(const Tile& tile, float (&sums)[kColumns / 2]) const {
    const SumsPlace place(tile.end - tile.begin, p.columns - tile.column, p.y_stride);
    result(place, tile.begin, tile.column, sums);
  }

  Product<BF16, Y> p;
  Result result;
};

// Tiles of dw, whose depth are the rows of a group. Without offsets, groups are parts of the rows,
// `rows_of_part` each.
template <int kColumns_>
struct GradientTiles {
  static constexpr int kColumns = kColumns_;
  static constexpr bool kTransposedA = true, kTransposedB = true;

  struct Tile {
    int group, begin;  // first row
    int n, k, depth;
  };

  __device__ void Plan(int32_t*) const {}
  __device__ int RowTiles() const { return static_cast<int>(Ceil(p.N, kHopperRows)); }
  __device__ int ColumnTiles() const { return static_cast<int>(Ceil(p.K, kColumns)); }
  __device__ int NumTiles(const int32_t*) const {
    return static_cast<int>(p.num_groups) * RowTiles() * ColumnTiles();
  }
  __device__ Tile At(int index, const int32_t*) const {
    const int of_group = RowTiles() * ColumnTiles(), group = index / of_group;
    const TilePlace place = Walk(index % of_group, RowTiles(), ColumnTiles());
    const int begin = p.offsets == nullptr ? group * rows_of_part : p.offsets[group];
    const int end = p.offsets == nullptr ? min(begin + rows_of_part, static_cast<int>(p.num_rows))
                                         : p.offsets[group + 1];
    return {group, begin, place.row * kHopperRows, place.column * kColumns, end - begin};
  }

  __device__ auto A(const Tile& tile) const {
    return ColumnSlices<kHopperRows>(p.dy, p.N, p.dy_rows, tile.begin, tile.depth, tile.n, p.N);
  }
  __device__ auto B(const Tile& tile) const {
    return ColumnSlices<kColumns>(p.x, p.K, p.x_rows, tile.begin, tile.depth, tile.k, p.K);
  }

  __device__ __forceinline__ void Store(const Tile& tile, float (&sums)[kColumns / 2]) const {
    const SumsPlace place(p.N - tile.n, p.K - tile.k, p.K);
    const StoreY<float> store = {p.dw + tile.group * p.N * p.K, p.K, p.accumulate};
    store(place, tile.n, tile.k, sums);
  }

  WeightGradient<BF16> p;
  int rows_of_part;
};

template <class Tiles>
__global__ void __launch_bounds__(kHopperThreads, 1) TilesKernel(const Tiles tiles) {
  using Stages = SliceRing<Tiles::kColumns>;
  __shared__ Stages ring;
  unsigned char* const stages = SharedAtoms();
  auto* const table = reinterpret_cast<int32_t*>(stages + Stages::kBytes);
  const int warpgroup = WarpgroupIndex();
  if (threadIdx.x < kWarp) tiles.Plan(table);
  if (threadIdx.x == 0) ring.Open();
  __syncthreads();
  const int num_tiles = tiles.NumTiles(table), step = static_cast<int>(gridDim.x);
  if (warpgroup == kConsumers) {
    Producer<Tiles::kColumns> producer(ring, stages);
    for (int i = static_cast<int>(blockIdx.x); i < num_tiles; i += step) {
      const auto tile = tiles.At(i, table);
      producer.Copy(tiles.A(tile), tiles.B(tile), tile.depth);
    }
    producer.Finish();
  } else {
    Consumer<Tiles::kColumns, Tiles::kTransposedA, Tiles::kTransposedB> consumer(ring, stages,
                                                                                 warpgroup);
    for (int i = static_cast<int>(blockIdx.x); i < num_tiles; i += step) {
      const auto tile = tiles.At(i, table);
      float sums[Tiles::kColumns / 2];
      consumer.Multiply(tile.depth, sums);
      tiles.Store(tile, sums);
    }
  }
}

}  // namespace moebius::cuda
