// What the products of linear.cc and linear_sum.cc share: groups of rows, and a tile of a product.
// For these two alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/tensor/tensor.h"
#include "kernels/cpu/units.h"

namespace moebius::cpu {

inline constexpr int64_t kRowBlock = 128;
inline constexpr int64_t kOperand = kRowBlock * kAStride;  // floats of a copied block of rows
inline constexpr int64_t kMaxColumns = 512;

// Rows that stand anywhere are fetched before they are needed: so many rows earlier.
inline constexpr int64_t kAhead = 4;
inline void Prefetch(const void* memory, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t i = 0; i < bytes; i += kLine)
    __builtin_prefetch(static_cast<const char*>(memory) + i);
}

// Where the rows of a product stand in an operand.
class RowsOf {
 public:
  explicit RowsOf(const Tensor& rows) : at_(rows.defined() ? rows.data<int32_t>() : nullptr) {}
  int64_t operator[](int64_t r) const { return at_ != nullptr ? at_[r] : r; }

 private:
  const int32_t* const at_;
};

struct Group {
  int64_t begin, end;
};

inline std::vector<Group> Groups(const Tensor& offsets, int64_t rows) {
  if (!offsets.defined()) return {{0, rows}};
  std::vector<Group> groups;
  const auto at = offsets.span<int32_t>();
  for (size_t j = 1; j < at.size(); ++j) groups.push_back({at[j - 1], at[j]});
  return groups;
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
// n on. `a` is scratch for kRowBlock rows of an operand.
struct TileArgs {
  const Tensor& x;
  RowsOf rows_of_x;
  int64_t begin, end;  // rows of the product
  const float* image;
  int64_t n, columns;
  const float* next;  // where the next tile's image begins, if it is known
  float* c;
  int64_t c_row;
  bool accumulate;
};
inline void MultiplyTile(const TileArgs& args, const Units& units, float* a) {
  const int64_t K = args.x.shape()[1], num_units = units.Count(K), panel = units.simd.panel;
  const float* image = args.image + args.n * num_units;
  int64_t u = 0;
  do {
    const int64_t depth = std::min(kMaxDepth, num_units - u), k = u * units.per_unit();
    for (int64_t r = args.begin; r < args.end; ++r) {
      if (r + kAhead < args.end) {
        Prefetch(static_cast<const std::byte*>(args.x.raw()) +
                     (args.rows_of_x[r + kAhead] * K + k) * SizeOf(args.x.dtype()),
                 depth * static_cast<int64_t>(sizeof(float)));
      }
      units.AlongRow(args.x, args.rows_of_x[r] * K + k, std::min(depth * units.per_unit(), K - k),
                     a + (r - args.begin) * kAStride);
    }
    units.product({.m = args.end - args.begin,
                   .n = args.columns,
                   .k = depth,
                   .a = a,
                   .b = image + u * panel,
                   .b_panel = num_units * panel,
                   .b_step = panel,
                   .next_b = u + depth < num_units ? image + (u + depth) * panel : args.next,
                   .c = args.c,
                   .c_row = args.c_row,
                   .accumulate = u > 0 || args.accumulate});
    u += depth;
  } while (u < num_units);
}

inline const float* ImageOf(const Tensor& images, int64_t group, int64_t outputs, int64_t num_units,
                            const SimdKernels& simd) {
  return reinterpret_cast<const float*>(images.raw()) +
         group * CeilDiv(outputs, simd.panel) * simd.panel * num_units;
}

}  // namespace moebius::cpu
