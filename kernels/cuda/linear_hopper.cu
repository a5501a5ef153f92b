// Limited by arithmetic and L2: BF16 products of 128 x 256 or 128 x 128 tiles on the tensor cores
// of Hopper (hopper_pipeline.h counts). One block for each SM walks over tiles.
#include <type_traits>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/hopper_pipeline.h"
#include "kernels/cuda/hopper_sums.h"

namespace moebius::cuda {
namespace {

// Tiles that run at the same time share rows and columns in L2: of a grid of tiles, number `index`
// in bands of kBand rows, column by column.
struct TilePlace {
  int row, column;
};
__device__ TilePlace Walk(int index, int rows, int columns) {
  constexpr int kBand = 16;
  const int band = index / (kBand * columns), within = index % (kBand * columns);
  const int rows_of_band = min(kBand, rows - band * kBand);
  return {band * kBand + within % rows_of_band, within / rows_of_band};
}

__host__ __device__ constexpr int64_t Ceil(int64_t n, int64_t tile) {
  return (n + tile - 1) / tile;
}

// Tiles of y. A row of tiles belongs to one group: `table` has how many there are before each.
template <int kColumns_, bool kTransposedW, class Y, bool kSwiGlu>
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
    const int64_t first = int64_t{tile.begin} * p.y_stride + tile.column;
    StoreSums(place, sums, p.y + first, p.accumulate);
    if constexpr (kSwiGlu) StoreSwiGlu(place, sums, p.gate + first, p.h + first);
  }

  Product<BF16, Y> p;
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
    StoreSums(place, sums, p.dw + (tile.group * p.N + tile.n) * p.K + tile.k, p.accumulate);
  }

  WeightGradient<BF16> p;
  int rows_of_part;
};

__global__ void SumPartsKernel(const float* parts, int64_t num_parts, float* sum, int64_t n,
                               bool accumulate) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    float x = 0;
    for (int64_t part = 0; part < num_parts; ++part) x += parts[part * n + i];
    Put(sum[i], x, accumulate);
  }
}

constexpr int kAlignmentBytes = kAtomBytes;  // of the ring, which may begin anywhere

template <class Tiles>
__global__ void __launch_bounds__(kHopperThreads, 1) TilesKernel(const Tiles tiles) {
  using Stages = Ring<Tiles::kColumns>;
  __shared__ Stages ring;
  auto* const space = static_cast<unsigned char*>(DynamicShared());
  unsigned char* const stages = space + (-SharedAddress(space) & (kAlignmentBytes - 1));
  auto* const table = reinterpret_cast<int32_t*>(stages + Stages::kBytes);
  const int warpgroup = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
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

constexpr int kMaxSharedBytes = (227 << 10) - 1024;  // of it 1024 for the barriers

template <class Tiles>
int SharedBytes(int64_t num_groups) {
  return static_cast<int>(Ring<Tiles::kColumns>::kBytes + kAlignmentBytes +
                          (num_groups + 1) * sizeof(int32_t));
}

template <class Tiles>
void Start(const Tiles& tiles, int64_t most_tiles, Context& ctx) {
  CHECK_LT(most_tiles, int64_t{1} << 31) << "tiles of a product";
  const LaunchShape shape = {std::min<int64_t>(most_tiles, ChipOf(ctx).num_sms), kHopperThreads,
                             SharedBytes<Tiles>(tiles.p.num_groups)};
  Launch(TilesKernel<Tiles>, shape, ctx, tiles);
}

constexpr int kWide = 256, kNarrow = 128;

// Wide tiles, unless narrow ones waste less or keep more SMs busy.
bool WideTiles(int64_t row_tiles, int64_t columns, Context& ctx) {
  return columns > kNarrow && row_tiles * Ceil(columns, kWide) >= ChipOf(ctx).num_sms;
}

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kCellBytes == 0; }

bool Suits(int64_t num_groups, int64_t rows, int64_t inputs, int64_t outputs, Context& ctx) {
  constexpr int64_t kMostGroups = (kMaxSharedBytes - Ring<kWide>::kBytes - kAlignmentBytes) / 4 - 1;
  constexpr int64_t kMost = int64_t{1} << 31;
  return ChipOf(ctx).major == 9 && inputs % kNumbersOfCell == 0 && outputs % kNumbersOfCell == 0 &&
         num_groups <= kMostGroups && std::max({rows, inputs, outputs}) < kMost;
}

// Of the rows of one group, each multiplied by its own blocks, where there are fewer tiles than
// SMs.
int64_t NumParts(const WeightGradient<BF16>& p, Context& ctx) {
  constexpr int64_t kLeastRows = 1024;
  if (p.offsets != nullptr) return 1;
  const int64_t tiles = Ceil(p.N, kHopperRows) * Ceil(p.K, kNarrow);
  return std::max<int64_t>(std::min(ChipOf(ctx).num_sms / tiles, p.num_rows / kLeastRows), 1);
}

void StartGradient(const WeightGradient<BF16>& p, int rows_of_part, Context& ctx) {
  const int64_t row_tiles = p.num_groups * Ceil(p.N, kHopperRows);
  if (WideTiles(row_tiles, p.K, ctx)) {
    Start(GradientTiles<kWide>{p, rows_of_part}, row_tiles * Ceil(p.K, kWide), ctx);
  } else {
    Start(GradientTiles<kNarrow>{p, rows_of_part}, row_tiles * Ceil(p.K, kNarrow), ctx);
  }
}

}  // namespace

template <class Y>
bool MultiplyOnHopper(const Product<BF16, Y>& p, bool transposed, Context& ctx) {
  if (!Suits(p.num_groups, p.num_rows, p.inputs, p.columns, ctx) || p.w_stride % 8 != 0 ||
      !Aligned(p.x) || !Aligned(p.w) || !Aligned(p.y) || !Aligned(p.gate) || !Aligned(p.h)) {
    return false;
  }
  const int64_t row_tiles = p.num_rows / kHopperRows + p.num_groups;  // at most
  const auto start = [&]<int kColumns, bool kTransposed, bool kSwiGlu>() {
    Start(ProductTiles<kColumns, kTransposed, Y, kSwiGlu>{p}, row_tiles * Ceil(p.columns, kColumns),
          ctx);
  };
  const auto start_kind = [&]<int kColumns>() {
    if (transposed) return start.template operator()<kColumns, true, false>();
    if constexpr (std::is_same_v<Y, BF16>) {
      if (p.h != nullptr) return start.template operator()<kColumns, false, true>();
    }
    start.template operator()<kColumns, false, false>();
  };
  if (WideTiles(row_tiles, p.columns, ctx)) {
    start_kind.template operator()<kWide>();
  } else {
    start_kind.template operator()<kNarrow>();
  }
  return true;
}
template bool MultiplyOnHopper(const Product<BF16, float>&, bool, Context&);
template bool MultiplyOnHopper(const Product<BF16, BF16>&, bool, Context&);

bool AddGradientOnHopper(const WeightGradient<BF16>& p, Context& ctx) {
  if (!Suits(p.num_groups, p.num_rows, p.N, p.K, ctx) || !Aligned(p.dy) || !Aligned(p.x) ||
      !Aligned(p.dw)) {
    return false;
  }
  const int64_t parts = NumParts(p, ctx);
  if (parts == 1) {
    StartGradient(p, static_cast<int>(p.num_rows), ctx);
    return true;
  }
  const Tensor sums = ctx.Empty(DType::kF32, {parts, p.N, p.K}, "linear.scratch");
  WeightGradient<BF16> of_parts = p;
  of_parts.num_groups = parts, of_parts.dw = sums.device_data<float>(), of_parts.accumulate = false;
  StartGradient(of_parts, static_cast<int>(Ceil(p.num_rows, parts)), ctx);
  Launch(SumPartsKernel, ForElements(p.N * p.K), ctx, sums.device_data<float>(), parts, p.dw,
         p.N * p.K, p.accumulate);
  return true;
}

}  // namespace moebius::cuda
