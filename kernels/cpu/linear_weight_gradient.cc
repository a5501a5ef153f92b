#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTilesPerThread = 2;                 // so that threads end together
constexpr int64_t kMaxHeight = 512, kMaxWidth = 1024;  // of a tile

// Units between panels, so that they spread over the sets of a cache.
constexpr int64_t kPad = 16;

// A gradient of this size is written past the caches: it would leave them before it is read, and
// an ordinary store reads first what it overwrites.
constexpr int64_t kStreamedBytes = int64_t{4} << 20;

// Where tiles of dw lie: `height` rows, which are columns of dy, and `width` columns of x.
struct TileCut {
  TileCut(int64_t matrices, int64_t N, int64_t K, const Units& units, int64_t threads) {
    const auto cut = [&] {
      height = std::min(N, RoundUp(CeilDiv(N, down), units.rows()));
      width = std::min(K, RoundUp(CeilDiv(K, across), units.simd.panel));
      down = CeilDiv(N, height);
      across = CeilDiv(K, width);
    };
    down = CeilDiv(N, RoundUp(kMaxHeight, units.rows()));
    across = CeilDiv(K, kMaxWidth);
    cut();
    while (matrices * down * across < kTilesPerThread * threads && height > 64) {
      height > width ? down *= 2 : across *= 2;
      cut();
    }
  }
  int64_t down, across, height, width;
};

// One operand: columns of its rows, packed into panels.
class Packer {
 public:
  Packer(const Tensor& x, const Tensor& rows, const Units& units, const Packing& packing)
      : x_(x),
        rows_(rows),
        units_(units),
        pack_(units.pairs  ? packing.pairs
              : units.bf16 ? packing.widened
                           : packing.floats) {}

  // At most kMaxDepth units of rows, from `column` on.
  void Pack(const Group& rows, int64_t column, int64_t columns, float* panels,
            int64_t panel) const {
    std::array<const void*, 2 * kMaxDepth + 1> at;
    for (int64_t r = rows.begin; r < rows.end; ++r) at[r - rows.begin] = At(r, column);
    at[rows.end - rows.begin] = nullptr;
    pack_({.rows = at.data(),
           .k = units_.Count(rows.end - rows.begin),
           .n = columns,
           .panels = panels,
           .panel = panel});
  }

  // Appends where pieces of `lines` begin that cover the same.
  void AddPieces(const Group& rows, int64_t column, int64_t columns, int64_t lines,
                 std::vector<const void*>& pieces) const {
    constexpr int64_t kLine = 64;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      for (int64_t i = 0; i < columns * SizeOf(x_.dtype()); i += lines * kLine) {
        pieces.push_back(At(r, column) + i);
      }
    }
  }

 private:
  const std::byte* At(int64_t r, int64_t column) const {
    return static_cast<const std::byte*>(x_.raw()) +
           (rows_[r] * x_.shape()[1] + column) * SizeOf(x_.dtype());
  }

  const Tensor& x_;
  const RowsOf rows_;
  const Units& units_;
  void (*const pack_)(const PanelRows&);
};

// Rows n .. n + height and columns k .. k + width of the gradient of one matrix.
struct Place {
  int64_t matrix, n, k, height, width;
};

class WeightGradient {
 public:
  WeightGradient(const kernels::LinearWeightGradientArgs& args, const Units& units, int64_t threads)
      : args_(args),
        units_(units),
        N_(args.dy.shape()[1]),
        K_(args.x.shape()[1]),
        threads_(threads),
        groups_(Groups(args.offsets,
                       args.dy_rows.defined() ? args.dy_rows.size() : args.dy.shape()[0])),
        cut_(std::ssize(groups_), N_, K_, units, threads),
        dy_(args.dy, args.dy_rows, units, units.simd.pack_a),
        x_(args.x, args.x_rows, units, units.simd.pack_b) {}

  int64_t num_tiles() const { return std::ssize(groups_) * cut_.down * cut_.across; }

  // Floats of scratch for a tile: the panels of dy, then those of x.
  int64_t scratch() const {
    return PanelsOfDy() +
           CeilDiv(cut_.width, units_.simd.panel) * (kMaxDepth * units_.simd.panel + kPad);
  }

  // A tile, over its group's rows in chunks.
  void Multiply(int64_t tile, float* scratch) const {
    const Place place = PlaceOf(tile);
    const Group& group = groups_[place.matrix];
    std::vector<const void*> pieces;
    int64_t begin = group.begin;
    do {
      const Group rows = {begin, std::min(begin + kMaxDepth * units_.per_unit(), group.end)};
      const int64_t depth = units_.Count(rows.end - rows.begin);
      pieces.clear();
      if (rows.end < group.end) {
        AddPieces(place, rows.end, depth, pieces);
      } else if (tile + threads_ < num_tiles() && depth > 0) {
        // This thread's next tile, if all take as long.
        const Place next = PlaceOf(tile + threads_);
        AddPieces(next, groups_[next.matrix].begin, depth, pieces);
      }
      MultiplyChunk(place, rows, pieces, scratch);
      begin = rows.end;
    } while (begin < group.end);
  }

 private:
  int64_t PanelsOfDy() const {
    return CeilDiv(cut_.height, units_.rows()) * (kMaxDepth * units_.row_step() + kPad);
  }

  Place PlaceOf(int64_t tile) const {
    const int64_t n = tile / cut_.across % cut_.down * cut_.height;
    const int64_t k = tile % cut_.across * cut_.width;
    return {.matrix = tile / (cut_.down * cut_.across),
            .n = n,
            .k = k,
            .height = std::min(cut_.height, N_ - n),
            .width = std::min(cut_.width, K_ - k)};
  }

  // What a chunk of rows from `begin` on begins with.
  void AddPieces(const Place& place, int64_t begin, int64_t lines,
                 std::vector<const void*>& pieces) const {
    const int64_t end = begin + kPanelRowsAhead * units_.per_unit();
    const Group rows = {begin, std::min(end, groups_[place.matrix].end)};
    dy_.AddPieces(rows, place.n, place.height, lines, pieces);
    x_.AddPieces(rows, place.k, place.width, lines, pieces);
  }

  void MultiplyChunk(const Place& place, const Group& rows, const std::vector<const void*>& pieces,
                     float* scratch) const {
    const int64_t panel = units_.simd.panel, depth = units_.Count(rows.end - rows.begin);
    const int64_t a_panel = depth * units_.row_step() + kPad, b_panel = depth * panel + kPad;
    const Group& group = groups_[place.matrix];
    float *const a = scratch, *const b = scratch + PanelsOfDy();
    dy_.Pack(rows, place.n, place.height, a, a_panel);
    x_.Pack(rows, place.k, place.width, b, b_panel);
    units_.product({.m = place.height,
                    .n = place.width,
                    .k = depth,
                    .a = a,
                    .a_transposed = true,
                    .a_panel = a_panel,
                    .a_step = units_.row_step(),
                    .b = b,
                    .b_panel = b_panel,
                    .b_step = panel,
                    .fetched = pieces.data(),
                    .num_fetched = std::ssize(pieces),
                    .c = args_.dw.data<float>() + (place.matrix * N_ + place.n) * K_ + place.k,
                    .c_row = K_,
                    .accumulate = args_.accumulate || rows.begin > group.begin,
                    .stream = args_.dw.bytes() >= kStreamedBytes && rows.end == group.end});
  }

  const kernels::LinearWeightGradientArgs& args_;
  const Units& units_;
  const int64_t N_, K_, threads_;
  const std::vector<Group> groups_;
  const TileCut cut_;
  const Packer dy_, x_;
};

}  // namespace

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context,
                          const SimdKernels& simd) {
  const Units units(args.x.dtype(), simd);
  const WeightGradient gradient(args, units, context.pool().num_threads());
  ForWithScratch(context, gradient.num_tiles(), gradient.scratch(), "linear.scratch",
                 [&](int64_t tile, float* scratch) { gradient.Multiply(tile, scratch); });
}

}  // namespace moebius::cpu
