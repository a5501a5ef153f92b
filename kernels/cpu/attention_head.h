// The rows of one head of a tensor: as operands of products, and as results. For attention alone.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/units.h"

namespace moebius::cpu {

// One head of a tensor [rows, heads * C], whose row 0 is the tensor's row `row`. Holds neither the
// tensor nor `units`.
class Head {
 public:
  Head(const Tensor& x, int64_t row, int64_t head, int64_t C, const Units& units)
      : units_(&units),
        width_(C),
        padded_(RoundUp(C, units.simd.panel)),
        element_bytes_(units.bf16 ? 2 : 4),
        row_bytes_(x.shape()[1] * element_bytes_),
        rows_(x.raw() + row * row_bytes_ + head * C * element_bytes_) {}

  // Rows i .. i + n as units along them, kAStride apart: an operand A; padded with zeros to whole
  // panels.
  void Along(int64_t i, int64_t n, float* to) const {
    const int64_t depth = units_->Count(width_);
    for (int64_t r = i; r < i + n; ++r, to += kAStride) {
      if (width_ % units_->per_unit() != 0) to[depth - 1] = 0;
      if (units_->pairs) {
        std::memcpy(to, Row<uint16_t>(r), width_ * sizeof(uint16_t));
      } else {
        Floats(r, to);
      }
      std::fill(to + depth, to + padded_, 0.0f);
    }
  }

  // Rows i .. i + n as units across them, `apart` from each other: an operand B; padded with zeros
  // to whole panels.
  void Across(int64_t i, int64_t n, int64_t apart, float* to) const {
    for (int64_t r = i; r < i + n; r += units_->per_unit(), to += apart) {
      if (units_->pairs) {
        const uint16_t* second = r + 1 == i + n ? nullptr : Row<uint16_t>(r + 1);
        units_->simd.interleave(Row<uint16_t>(r), second, to, width_);
      } else {
        Floats(r, to);
      }
      std::fill(to + width_, to + padded_, 0.0f);
    }
  }

  // Rows i .. i + n <= panel, transposed into a panel. `block` is scratch for rows of an operand A.
  void Transpose(int64_t i, int64_t n, float* block, float* panel) const {
    const bool as_they_stand = AreUnits();
    if (!as_they_stand) Along(i, n, block);
    units_->simd.transpose_panel(as_they_stand ? Row<float>(i) : block,
                                 as_they_stand ? row_bytes_ / 4 : kAStride, n,
                                 units_->Count(width_), panel);
  }

  // Row i times row i of `other`.
  float Dot(int64_t i, const Head& other) const {
    if (!units_->bf16) return units_->simd.rows.dot(Row<float>(i), other.Row<float>(i), width_);
    return units_->simd.rows_bf16.dot(Row<uint16_t>(i), other.Row<uint16_t>(i), width_);
  }

  // Row i = scale * from, or has it added.
  void Write(int64_t i, const float* from, float scale, bool accumulate) const {
    const auto write = accumulate ? cpu::Write::kAdd : cpu::Write::kReplace;
    if (units_->bf16) {
      units_->simd.rows_bf16.scale(from, scale, Row<uint16_t>(i), write, width_);
    } else {
      units_->simd.rows.scale(from, scale, Row<float>(i), write, width_);
    }
  }

  // Begins to bring row i near. A head's rows stand apart, so that the processor does not foresee
  // them, and would wait for each.
  void Fetch(int64_t i) const {
    constexpr int64_t kLine = 64;
    constexpr int kToL2 = 2;  // the rows of a block would drive each other out of L1
    const std::byte* const row = Row<std::byte>(i);
    for (int64_t at = 0; at < width_ * element_bytes_; at += kLine) {
      __builtin_prefetch(row + at, 0, kToL2);
      asm volatile("" ::"r"(row));  // else gcc removes the loop as one without effect
    }
  }
  void Fetch(int64_t i, int64_t n) const {
    for (int64_t r = i; r < i + n; ++r) Fetch(r);
  }

 private:
  template <class T>
  T* Row(int64_t i) const {
    return reinterpret_cast<T*>(rows_ + i * row_bytes_);
  }

  void Floats(int64_t i, float* to) const {
    if (units_->bf16) {
      units_->simd.widen(Row<uint16_t>(i), to, width_);
    } else {
      std::memcpy(to, Row<float>(i), width_ * sizeof(float));
    }
  }

  // Rows are units along them where they stand.
  bool AreUnits() const {
    if (!units_->pairs) return !units_->bf16;
    return width_ % 2 == 0 && row_bytes_ % 4 == 0 && reinterpret_cast<uintptr_t>(rows_) % 4 == 0;
  }

  const Units* units_;
  int64_t width_, padded_, element_bytes_, row_bytes_;
  std::byte* rows_;
};

}  // namespace moebius::cpu
