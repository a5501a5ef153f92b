#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_tiles.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kTilesPerThread = 2;                 // so that threads end together
constexpr int64_t kMaxHeight = 512, kMaxWidth = 1024;  // of a tile

// Units of a step: operands of one and rows of the next are in the second-level cache together.
constexpr int64_t kDepth = 128;

// Units between panels, so that they spread over the sets of a cache.
constexpr int64_t kPad = 16;

// A gradient of this size is written past the caches: it would leave them before it is read, and
// an ordinary store reads first what it overwrites.
constexpr int64_t kStreamedBytes = int64_t{4} << 20;

// Rows n .. n + height and columns k .. k + width of the gradient of one matrix.
struct Place {
  int64_t matrix, n, k, height, width;
};

// Where part i of `parts` equal ones of `size` begins, in whole units.
int64_t Edge(int64_t size, int64_t i, int64_t parts, int64_t unit) {
  return i == parts ? size : std::min(size, (size * i / parts + unit / 2) / unit * unit);
}

// Cuts the gradient of one matrix, [N, K], into at least `num_tiles` unless they would be small.
void AddTiles(int64_t matrix, int64_t N, int64_t K, int64_t num_tiles, const Units& units,
              std::vector<Place>& places) {
  constexpr int64_t kMinHeight = 64;
  int64_t down = CeilDiv(N, RoundUp(kMaxHeight, units.rows())), across = CeilDiv(K, kMaxWidth);
  while (down * across < num_tiles && N / down > kMinHeight) {
    N / down > K / across ? down *= 2 : across *= 2;
  }
  for (int64_t i = 0; i < down; ++i) {
    const int64_t n = Edge(N, i, down, units.rows());
    const int64_t height = Edge(N, i + 1, down, units.rows()) - n;
    for (int64_t j = 0; j < across; ++j) {
      const int64_t k = Edge(K, j, across, units.simd.panel);
      const int64_t width = Edge(K, j + 1, across, units.simd.panel) - k;
      if (height > 0 && width > 0) places.push_back({matrix, n, k, height, width});
    }
  }
}

// Tiles of all gradients, those of groups with more rows first; small ones where threads come to
// last, so that they end together.
std::vector<Place> Tiles(const std::vector<Group>& groups, int64_t N, int64_t K, const Units& units,
                         int64_t threads) {
  constexpr int64_t kParts = 4;
  std::vector<Place> places;
  if (groups.size() == 1) {  // its tiles all take as long
    AddTiles(0, N, K, threads, units, places);
    return places;
  }
  const auto rows_of = [&](int64_t j) { return groups[j].size(); };
  std::vector<int64_t> matrices(groups.size());
  std::iota(matrices.begin(), matrices.end(), 0);
  std::ranges::stable_sort(matrices, std::greater(), rows_of);
  int64_t all_rows = 0;
  for (const Group& group : groups) all_rows += group.size();
  const Group last = threads == 1 ? Group{0, 0} : LastItems(matrices, threads, rows_of);
  for (int64_t i = 0; i < std::ssize(matrices); ++i) {
    const int64_t rows = rows_of(matrices[i]);
    const int64_t share = all_rows == 0 ? 1 : CeilDiv(kTilesPerThread * threads * rows, all_rows);
    const bool is_last = last.begin <= i && i < last.end;
    AddTiles(matrices[i], N, K, is_last ? kParts * share : share, units, places);
  }
  return places;
}

// Rows of an operand that a chunk is made of, from some column on: pairs want a partner, which is
// null behind the last.
struct ChunkRows {
  std::array<const void*, 2 * kDepth + 1> at;
  int64_t size = 0;
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

  // At most kDepth units of rows.
  void Find(const Group& rows, int64_t column, ChunkRows* chunk) const {
    chunk->size = rows.end - rows.begin;
    for (int64_t i = 0; i < chunk->size; ++i) {
      chunk->at[i] = static_cast<const std::byte*>(x_.raw()) +
                     (rows_[rows.begin + i] * x_.shape()[1] + column) * SizeOf(x_.dtype());
    }
    chunk->at[chunk->size] = nullptr;
  }

  void Pack(const ChunkRows& chunk, int64_t columns, float* panels, int64_t panel) const {
    pack_({.rows = chunk.at.data(),
           .k = units_.Count(chunk.size),
           .n = columns,
           .panels = panels,
           .panel = panel});
  }

  RowsAhead Ahead(const ChunkRows& chunk, int64_t columns) const {
    constexpr int64_t kLine = 64;
    return {chunk.at.data(), chunk.size, CeilDiv(columns * SizeOf(x_.dtype()), kLine)};
  }

 private:
  const Tensor& x_;
  const RowsOf rows_;
  const Units& units_;
  void (*const pack_)(const PanelRows&);
};

// A step of a tile.
struct Chunk {
  Group rows;
  ChunkRows dy, x;
};

class WeightGradient {
 public:
  WeightGradient(const kernels::LinearWeightGradientArgs& args, const Units& units, int64_t threads)
      : args_(args),
        units_(units),
        N_(args.dy.shape()[1]),
        K_(args.x.shape()[1]),
        groups_(Groups(args.offsets,
                       args.dy_rows.defined() ? args.dy_rows.size() : args.dy.shape()[0])),
        places_(Tiles(groups_, N_, K_, units, threads)),
        dy_(args.dy, args.dy_rows, units, units.simd.pack_a),
        x_(args.x, args.x_rows, units, units.simd.pack_b) {}

  int64_t num_tiles() const { return std::ssize(places_); }

  // Floats of scratch for a tile: the panels of dy, then those of x.
  int64_t scratch() const {
    int64_t most = 0;
    for (const Place& place : places_) most = std::max(most, PanelsOfDy(place) + PanelsOfX(place));
    return most;
  }

  // A tile, over its group's rows in chunks. Then comes tile `next`, if that is not negative.
  void Multiply(int64_t tile, int64_t next, float* scratch) const {
    Chunk chunks[2], *chunk = &chunks[0], *ahead = &chunks[1];
    const Place& place = places_[tile];
    Find(place, groups_[place.matrix].begin, chunk);
    while (chunk->rows.end < groups_[place.matrix].end) {
      Find(place, chunk->rows.end, ahead);
      MultiplyChunk(place, *chunk, place, *ahead, scratch);
      std::swap(chunk, ahead);
    }
    const Place& then = places_[next >= 0 ? next : tile];
    const Group& rows = groups_[then.matrix];
    Find(then, next >= 0 ? rows.begin : rows.end, ahead);
    MultiplyChunk(place, *chunk, then, *ahead, scratch);
  }

 private:
  int64_t PanelsOfDy(const Place& place) const {
    return CeilDiv(place.height, units_.rows()) * (kDepth * units_.row_step() + kPad);
  }
  int64_t PanelsOfX(const Place& place) const {
    const int64_t panel = units_.simd.panel;
    return CeilDiv(place.width, panel) * (kDepth * panel + kPad);
  }

  void Find(const Place& place, int64_t begin, Chunk* chunk) const {
    const int64_t end = groups_[place.matrix].end;
    chunk->rows = {begin, std::min(begin + kDepth * units_.per_unit(), end)};
    dy_.Find(chunk->rows, place.n, &chunk->dy);
    x_.Find(chunk->rows, place.k, &chunk->x);
  }

  void MultiplyChunk(const Place& place, const Chunk& chunk, const Place& next_place,
                     const Chunk& next, float* scratch) const {
    const int64_t panel = units_.simd.panel, depth = units_.Count(chunk.rows.size());
    const int64_t a_panel = depth * units_.row_step() + kPad, b_panel = depth * panel + kPad;
    const Group& group = groups_[place.matrix];
    float *const a = scratch, *const b = scratch + PanelsOfDy(place);
    dy_.Pack(chunk.dy, place.height, a, a_panel);
    x_.Pack(chunk.x, place.width, b, b_panel);
    units_.product(
        {.m = place.height,
         .n = place.width,
         .k = depth,
         .a = a,
         .a_transposed = true,
         .a_panel = a_panel,
         .a_step = units_.row_step(),
         .b = b,
         .b_panel = b_panel,
         .b_step = panel,
         .fetched = {dy_.Ahead(next.dy, next_place.height), x_.Ahead(next.x, next_place.width)},
         .c = args_.dw.data<float>() + (place.matrix * N_ + place.n) * K_ + place.k,
         .c_row = K_,
         .accumulate = args_.accumulate || chunk.rows.begin > group.begin,
         .stream = args_.dw.bytes() >= kStreamedBytes && chunk.rows.end == group.end});
  }

  const kernels::LinearWeightGradientArgs& args_;
  const Units& units_;
  const int64_t N_, K_;
  const std::vector<Group> groups_;
  const std::vector<Place> places_;
  const Packer dy_, x_;
};

}  // namespace

void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context,
                          const SimdKernels& simd) {
  const Units units(args.x.dtype(), simd);
  const WeightGradient gradient(args, units, context.pool().num_threads());
  ForFromBothEnds(
      context, gradient.num_tiles(), gradient.scratch(), "linear.scratch",
      [&](int64_t tile, int64_t next, float* scratch) { gradient.Multiply(tile, next, scratch); });
}

}  // namespace moebius::cpu
