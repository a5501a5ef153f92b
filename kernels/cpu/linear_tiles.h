// What the products of linear*.cc share: groups of rows, and a tile of a product. For these alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "core/tensor/tensor.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {

inline constexpr int64_t kRowBlock = 128;
inline constexpr int64_t kOperand = kRowBlock * kAStride;  // floats of a copied block of rows
inline constexpr int64_t kMaxColumns = 512;

// Where the rows of a product stand in an operand.
class RowsOf {
 public:
  explicit RowsOf(const Tensor& rows) : at_(rows.defined() ? rows.data<int32_t>() : nullptr) {}
  int64_t operator[](int64_t r) const { return at_ != nullptr ? at_[r] : r; }

 private:
  const int32_t* const at_;
};

struct Group {
  int64_t size() const { return end - begin; }
  int64_t begin, end;
};

// One of `parts` equal parts.
inline Group Part(const Group& group, int64_t part, int64_t parts) {
  return {group.begin + group.size() * part / parts,
          group.begin + group.size() * (part + 1) / parts};
}

inline std::vector<Group> Groups(const Tensor& offsets, int64_t rows) {
  if (!offsets.defined()) return {{0, rows}};
  std::vector<Group> groups;
  const auto at = offsets.span<int32_t>();
  for (size_t j = 1; j < at.size(); ++j) groups.push_back({at[j - 1], at[j]});
  return groups;
}

// Which of the items of a list threads come to last if they begin at both ends (ForFromBothEnds):
// about where half of their rows lie on either side. `rows_of` an item.
template <class Items, class Rows>
Group LastItems(const Items& items, int64_t threads, const Rows& rows_of) {
  int64_t all = 0, before = 0, middle = 0;
  for (const auto& item : items) all += rows_of(item);
  while (middle < std::ssize(items) && 2 * (before + rows_of(items[middle])) <= all) {
    before += rows_of(items[middle++]);
  }
  const int64_t begin = std::max<int64_t>(middle - threads / 2, 0);
  return {begin, std::min<int64_t>(begin + threads, std::ssize(items))};
}

// Rows of sums to bf16, added to what is there if `accumulate`; `before` holds a row.
struct NarrowArgs {
  float* sums;
  int64_t rows, columns, sums_row;
  uint16_t* y;
  int64_t y_row;
  bool accumulate;
  float* before;
};
inline void NarrowRows(const NarrowArgs& args, const SimdKernels& simd) {
  for (int64_t r = 0; r < args.rows; ++r) {
    float* sums = args.sums + r * args.sums_row;
    uint16_t* y = args.y + r * args.y_row;
    if (args.accumulate) {
      simd.widen(y, args.before, args.columns);
      for (int64_t i = 0; i < args.columns; ++i) sums[i] += args.before[i];
    }
    simd.narrow(sums, y, args.columns);
  }
}

// c [rows, columns] (+)= rows of x times `columns` outputs of the image of one matrix, from output
// n on; or added to scattered rows, as BlockProduct says. `a` is scratch for kRowBlock rows of an
// operand.
struct TileArgs {
  const Tensor& x;
  RowsOf rows_of_x;
  Group rows;  // of the product
  const float* image;
  int64_t n, columns;
  Group next_rows;          // of this thread's next tile, if they are known
  const float* next_image;  // where its image begins, or null
  float* c;
  int64_t c_row;
  bool accumulate;
  float* const* c_rows = nullptr;
  const float* scales = nullptr;
};
class TileProduct {
 public:
  TileProduct(const TileArgs& args, const Units& units)
      : args_(args), units_(units), K_(args.x.shape()[1]) {}

  void Run(float* a) const {
    const int64_t num_units = units_.Count(K_), panel = units_.simd.panel;
    const float* image = args_.image + args_.n * num_units;
    std::array<const void*, kRowBlock> ahead;
    int64_t u = 0;
    do {
      const int64_t depth = std::min(kMaxDepth, num_units - u), next = u + depth;
      CopyRows(u, depth, a);
      units_.product({.m = args_.rows.size(),
                      .n = args_.columns,
                      .k = depth,
                      .a = a,
                      .b = image + u * panel,
                      .b_panel = num_units * panel,
                      .b_step = panel,
                      .next_b = next < num_units ? image + next * panel : args_.next_image,
                      .fetched = {next < num_units ? Ahead(args_.rows, next, ahead)
                                                   : Ahead(args_.next_rows, 0, ahead)},
                      .c = args_.c,
                      .c_row = args_.c_row,
                      .c_rows = args_.c_rows,
                      .scales = args_.scales,
                      .accumulate = u > 0 || args_.accumulate});
      u = next;
    } while (u < num_units);
  }

 private:
  // Row r of the product from unit u on.
  int64_t At(int64_t r, int64_t u) const { return args_.rows_of_x[r] * K_ + u * units_.per_unit(); }

  void CopyRows(int64_t u, int64_t depth, float* a) const {
    const int64_t n = std::min(depth * units_.per_unit(), K_ - u * units_.per_unit());
    for (int64_t r = args_.rows.begin; r < args_.rows.end; ++r, a += kAStride) {
      units_.AlongRow(args_.x, At(r, u), n, a);
    }
  }

  // A step of these rows, from unit u on.
  RowsAhead Ahead(const Group& rows, int64_t u, std::array<const void*, kRowBlock>& ahead) const {
    constexpr int64_t kLine = 64;
    const int64_t n = std::min(kMaxDepth * units_.per_unit(), K_ - u * units_.per_unit());
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      ahead[r - rows.begin] =
          static_cast<const std::byte*>(args_.x.raw()) + At(r, u) * SizeOf(args_.x.dtype());
    }
    return {ahead.data(), rows.size(), CeilDiv(n * SizeOf(args_.x.dtype()), kLine)};
  }

  const TileArgs& args_;
  const Units& units_;
  const int64_t K_;
};

inline const float* ImageOf(const Tensor& images, int64_t group, int64_t outputs, int64_t num_units,
                            const SimdKernels& simd) {
  return reinterpret_cast<const float*>(images.raw()) +
         group * CeilDiv(outputs, simd.panel) * simd.panel * num_units;
}

}  // namespace moebius::cpu
