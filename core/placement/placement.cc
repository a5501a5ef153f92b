#include "core/placement/placement.h"

#include <algorithm>

namespace moebius {
namespace {

struct Run {
  int64_t begin, end;
};

// The runs of consecutive indices of `dimension` that `at` holds.
std::vector<Run> RunsOf(const Placement& placement, int dimension, const MeshPosition& at) {
  const auto cut = std::ranges::find(placement.cuts, dimension, &Cut::dimension);
  const int64_t size = placement.global_shape[dimension];
  if (size == 0) return {};
  if (cut == placement.cuts.end()) return {{0, size}};
  CHECK_EQ(static_cast<int64_t>(cut->owner.size()), size) << "one owner an index";
  std::vector<Run> runs;
  for (int64_t i = 0; i < size; ++i) {
    if (cut->owner[i] != at.index_on(cut->axis)) continue;
    if (!runs.empty() && runs.back().end == i) {
      ++runs.back().end;
    } else {
      runs.push_back({i, i + 1});
    }
  }
  return runs;
}

int64_t NumElements(const Piece& piece) {
  int64_t count = 1;
  for (size_t d = 0; d < piece.begin.size(); ++d) count *= piece.end[d] - piece.begin[d];
  return count;
}

// Appends the blocks that elements [begin, end) of `block` cover. Before dimension `d` the block
// has one index each, so its rows along `d` stand one after the other.
void SplitRange(Piece block, size_t d, int64_t begin, int64_t end, std::vector<Piece>* out) {
  if (begin >= end) return;
  if (d == block.begin.size()) return out->push_back(std::move(block));
  const int64_t row_size = NumElements(block) / (block.end[d] - block.begin[d]);
  const auto rows = [&](int64_t first, int64_t last) {
    Piece some = block;
    some.begin[d] = block.begin[d] + first;
    some.end[d] = block.begin[d] + last;
    return some;
  };
  const auto split_row = [&](int64_t row) {  // what [begin, end) covers of one row
    SplitRange(rows(row, row + 1), d + 1, std::max<int64_t>(begin - row * row_size, 0),
               std::min(end - row * row_size, row_size), out);
  };
  const int64_t first = (begin + row_size - 1) / row_size, last = end / row_size;  // whole rows
  if (first > last) return split_row(last);
  if (begin < first * row_size) split_row(first - 1);
  if (first < last) out->push_back(rows(first, last));
  if (last * row_size < end) split_row(last);
}

}  // namespace

const char* NameOf(Axis axis) {
  static constexpr const char* kNames[kNumAxes] = {
      "pipeline", "data", "context", "tensor", "expert_data", "expert", "expert_tensor"};
  return kNames[static_cast<int>(axis)];
}

std::vector<int> EvenOwners(int64_t size, int count) {
  CHECK_GT(count, 0);
  std::vector<int> owner;
  for (int position = 0; position < count; ++position) {
    owner.insert(owner.end(), size / count + (position < size % count), position);
  }
  return owner;
}

Shape Placement::LocalShape(const MeshPosition& at) const {
  Shape local = global_shape;
  for (const Cut& cut : cuts) {
    local[cut.dimension] = std::ranges::count(cut.owner, at.index_on(cut.axis));
  }
  return local;
}

std::vector<Piece> Placement::Pieces(const MeshPosition& at) const {
  const int rank = global_shape.rank();
  Piece whole{0, std::vector<int64_t>(rank), std::vector<int64_t>(rank)};
  for (int d = 1; d < rank; ++d) {
    const std::vector<Run> runs = RunsOf(*this, d, at);
    if (runs.empty()) return {};
    CHECK_EQ(runs.size(), 1u) << "only the leading dimension may be scattered";
    whole.begin[d] = runs[0].begin;
    whole.end[d] = runs[0].end;
  }
  if (rank == 0) return {whole};
  std::vector<Piece> pieces;
  int64_t local = 0;
  for (const Run& run : RunsOf(*this, 0, at)) {
    Piece piece = whole;
    piece.local_begin = local;
    piece.begin[0] = run.begin;
    piece.end[0] = run.end;
    local += run.end - run.begin;
    pieces.push_back(piece);
  }
  return pieces;
}

std::vector<Piece> Placement::FlatPieces(const MeshPosition& at, int64_t begin, int64_t end) const {
  std::vector<Piece> blocks;
  int64_t first = 0;  // element of the local tensor
  for (const Piece& piece : Pieces(at)) {
    const int64_t size = NumElements(piece);
    SplitRange(piece, 0, std::max<int64_t>(begin - first, 0), std::min(end - first, size), &blocks);
    first += size;
  }
  CHECK(0 <= begin && begin <= end && end <= first) << begin << " to " << end << " of " << first;
  int64_t local = 0;
  for (Piece& block : blocks) {
    block.local_begin = local;
    local += NumElements(block);
  }
  return blocks;
}

bool Placement::IsFirstReplica(const MeshPosition& at) const {
  return std::ranges::all_of(replicated,
                             [&](const Replication& r) { return at.index_on(r.axis) == 0; });
}

}  // namespace moebius
