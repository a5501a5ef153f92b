// What the kernels of attention on the tensor cores of Hopper share. A block has 128 rows of one
// head, queries or keys, 64 for each multiplying warpgroup; tiles of the other kind pass by as
// columns (hopper_ring.h). Scores lie in registers as Wgmma leaves them, and go from there into the
// next product: no thread writes to shared memory.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <numbers>

#include "kernels/cuda/attention_operands.h"
#include "kernels/cuda/chip.h"
#include "kernels/cuda/hopper_ring.h"
#include "kernels/cuda/hopper_sums.h"

namespace moebius::cuda {

inline constexpr float kLog2E = std::numbers::log2e_v<float>;

__host__ __device__ constexpr int64_t HopperTiles(int64_t n, int64_t tile = kHopperRows) {
  return (n + tile - 1) / tile;
}

// Rows of a head in shared memory: for every 64 of its C columns, a line for each row.
template <int kRows, int C>
struct HeadRows {
  static constexpr int kBytes = kRows * C * 2;

  // Of a tensor [.., heads * C], by the copying warpgroup; zeros behind the last position.
  static __device__ __forceinline__ void Copy(unsigned char* to, const BF16* x, int64_t heads,
                                              int64_t head, const Positions& at) {
    const BF16* const from =
        x + ((at.row + CopyLine()) * heads + head) * C + CopyCell() * kNumbersOfCell;
    const int stride = static_cast<int>(heads) * C * kLinesAtOnce;
#pragma unroll
    for (int i = 0; i < kRows / kLinesAtOnce; ++i) {
      const bool inside = CopyLine() + kLinesAtOnce * i < static_cast<int>(at.count);
#pragma unroll
      for (int c = 0; c < C; c += 64) {
        CopyAsync(to + c / 64 * kRows * kLineBytes + CopyPlace(i), from + i * stride + c, inside);
      }
    }
  }
};

// sums = a b^T, begun: 64 of kRowsA rows times kRowsB rows, over the C columns of both.
template <int C, int kRowsA, int kRowsB>
__device__ __forceinline__ void MultiplyRows(const unsigned char* a, const unsigned char* b,
                                             float (&sums)[kRowsB / 2]) {
  const uint64_t a_rows = MatrixDescriptor(a, kRowsA * kLineBytes);
  const uint64_t b_rows = MatrixDescriptor(b, kRowsB * kLineBytes);
  WgmmaFence();
#pragma unroll
  for (int c = 0; c < C; c += kInstructionDepth) {
    Wgmma<false, false>(sums, Further(a_rows, c / 64 * kRowsA * kLineBytes + c % 64 * 2),
                        Further(b_rows, c / 64 * kRowsB * kLineBytes + c % 64 * 2), c > 0);
  }
  WgmmaCommit();
}

// A warpgroup's 64 rows of numbers for as many columns, rounded, as an operand.
template <int kColumns>
using Weights = uint32_t[kColumns / kInstructionDepth][4];

template <int kColumns>
__device__ __forceinline__ void Pack(const float (&scores)[kColumns / 2],
                                     Weights<kColumns>& weights) {
#pragma unroll
  for (int k = 0; k < kColumns / kInstructionDepth; ++k) PackOperand(scores, k, weights[k]);
}

// sums += w x, begun: 64 rows of weights times the kRows rows of a tile.
template <int C, int kRows>
__device__ __forceinline__ void AddWeighted(const Weights<kRows>& w, const unsigned char* x,
                                            float (&sums)[C / 2]) {
  const uint64_t rows = MatrixDescriptor(x, kRows * kLineBytes);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kRows; k += kInstructionDepth) {
    Wgmma<true>(sums, w[k / kInstructionDepth], Further(rows, k * kLineBytes));
  }
  WgmmaCommit();
}

// Of the two rows of a thread, SumsPlace::Row(0) and (1).
template <int n>
__device__ __forceinline__ void ScaleRows(const float (&factors)[2], float (&sums)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) sums[i] *= factors[SumsPlace::Half(i)];
}

// The queries and the head of a block of a grid [tiles, B, H], late queries, which see most, first;
// and the tiles of kKeys keys that they may see. It lies in shared memory: registers are for sums.
struct QueryTile {
  template <int kKeys>
  static __device__ QueryTile Of(const AttentionOperands<BF16>& x);  // all threads call

  __device__ Positions Keys(const AttentionOperands<BF16>& x, int tile, int keys_of_tile) const {
    return KeysFrom(x, queries.sequence, first_key + tile * keys_of_tile, keys_of_tile);
  }

  int head, kv_head, chunk, first;  // query number `first` of a chunk
  Positions queries;
  int first_key, num_tiles;
};

template <int kKeys>
__device__ QueryTile QueryTile::Of(const AttentionOperands<BF16>& x) {
  const auto H = static_cast<int>(x.H);
  const auto of_chunk = static_cast<int>(HopperTiles(x.chunk_length));
  const int tiles = static_cast<int>(x.num_chunks) * of_chunk;
  const int heads = static_cast<int>(gridDim.x) / tiles, i = static_cast<int>(blockIdx.x) % heads;
  const int tile = tiles - 1 - static_cast<int>(blockIdx.x) / heads;
  QueryTile block;
  block.head = i % H, block.kv_head = block.head / static_cast<int>(x.H / x.G);
  block.chunk = tile / of_chunk, block.first = tile % of_chunk * kHopperRows;
  block.queries = QueriesFrom(x, i / H, block.chunk, block.first, kHopperRows);
  block.first_key = static_cast<int>(FirstKey(x, block.queries));
  block.num_tiles = static_cast<int>(HopperTiles(block.queries.end() - block.first_key, kKeys));
  return block;
}

inline LaunchShape QueryTiles(const kernels::AttentionShape& shape, int shared_bytes) {
  const kernels::QueryChunks chunks = shape.query_chunks();
  const int64_t tiles = chunks.num_chunks * HopperTiles(chunks.length);
  return {tiles * shape.num_sequences * shape.num_heads, kHopperThreads, shared_bytes};
}

// Which scores of a tile count. Rows are queries and columns keys, or the other way round; then
// columns of padding are the caller's business.
enum class Rows { kQueries, kKeys };
template <Rows kRows>
class Visibility {
 public:
  __device__ Visibility(const AttentionOperands<BF16>& x, const Positions& rows)
      : ids_(x.ids == nullptr ? nullptr : x.ids + rows.sequence * x.S),
        warp_begin_(static_cast<int>(rows.begin) + static_cast<int>(threadIdx.x) / kWarp * 16) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = SumsPlace::Row(half);
      position_[half] = static_cast<int>(rows.begin) + row;
      if (ids_ == nullptr) continue;
      id_[half] = row < rows.count ? ids_[position_[half]] : kPadding;
      if (kRows == Rows::kQueries && id_[half] < 0) position_[half] = -1;  // sees nothing
    }
    const int32_t first = __shfl_sync(0xFFFFFFFFu, id_[0], 0);
    const bool alike = __all_sync(0xFFFFFFFFu, id_[0] == first && id_[1] == first) != 0;
    document_ = alike && first >= 0 ? first : kSeveral;
  }

  // Scores that do not count become minus infinity. `columns` has n * 2 positions, or ends before.
  template <int n>
  __device__ __forceinline__ void Mask(const Positions& columns, float (&scores)[n]) const {
    const int begin = static_cast<int>(columns.begin), count = static_cast<int>(columns.count);
    if (AllCount<2 * n>(begin, count)) return;
#pragma unroll
    for (int pair = 0; pair < n; pair += 4) {
#pragma unroll
      for (int i = pair; i < pair + 2; ++i) {
        const int column = AccumulatorColumn(i), position = begin + column;
        const int32_t id = ids_ != nullptr && column < count ? ids_[position] : 0;
        if (!Counts(0, position, id) || column >= count) scores[i] = -INFINITY;
        if (!Counts(1, position, id) || column >= count) scores[i + 2] = -INFINITY;
      }
    }
  }

 private:
  static constexpr int32_t kPadding = -1, kSeveral = -2;

  __device__ __forceinline__ bool Counts(int half, int position, int32_t id) const {
    return id == id_[half] &&
           (kRows == Rows::kQueries ? position <= position_[half] : position >= position_[half]);
  }

  // For the 16 rows of a warp.
  template <int kColumns>
  __device__ __forceinline__ bool AllCount(int begin, int count) const {
    const bool ordered =
        kRows == Rows::kQueries ? begin + kColumns - 1 <= warp_begin_ : begin >= warp_begin_ + 15;
    if (!ordered || count < kColumns) return false;
    if (ids_ == nullptr) return true;
    bool alike = true;
    for (int i = LaneIndex(); i < kColumns; i += kWarp) alike &= ids_[begin + i] == document_;
    return __all_sync(0xFFFFFFFFu, alike) != 0;
  }

  const int32_t* ids_;
  int warp_begin_, position_[2];
  int32_t id_[2] = {}, document_;
};

inline bool SuitHopper(const kernels::AttentionShape& shape, std::initializer_list<Tensor> operands,
                       Context& ctx) {
  const auto suits = [](const Tensor& x) {
    return x.dtype() == DType::kBF16 &&
           reinterpret_cast<uintptr_t>(x.device_data<BF16>()) % kCellBytes == 0;
  };
  return ChipOf(ctx).major == 9 && (shape.head_dim == 64 || shape.head_dim == 128) &&
         shape.sequence_length < int64_t{1} << 30 &&
         std::all_of(operands.begin(), operands.end(), suits);
}

}  // namespace moebius::cuda
