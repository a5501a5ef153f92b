#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/dtype.h"
#include "kernels/cpu/simd_amx_software.h"

namespace moebius::cpu {
namespace {

float Half(float unit, int half) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(unit) >> (16 * half) << 16);
}

// Small integers: every sum is exact.
std::vector<float> Pairs(int64_t units, const char* name) {
  const RandomStream stream(1, name);
  std::vector<float> pairs(static_cast<size_t>(units));
  for (int64_t i = 0; i < units; ++i) {
    uint32_t pair = 0;
    for (int half = 0; half < 2; ++half) {
      const uint64_t draw = stream.Below(static_cast<uint64_t>(2 * i + half), 7);
      pair |= uint32_t{BF16(static_cast<float>(draw) - 3).bits} << (16 * half);
    }
    pairs[i] = std::bit_cast<float>(pair);
  }
  return pairs;
}

TEST(Amx, MultipliesBlocksOfAnySize) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                   {32, 32, 16},
                                                                   {33, 40, 15},
                                                                   {64, 96, 48},
                                                                   {128, 70, 37},
                                                                   {5, 64, 256},
                                                                   {32, 32, 0}}) {
    for (const bool transposed : {false, true}) {
      const int64_t whole = (m + 31) / 32 * 32, panels = (n + 31) / 32;
      const auto a = Pairs((transposed ? k + 1 : whole) * kAStride, "a");
      const auto b = Pairs(panels * k * 32, "b");
      for (const bool accumulate : {false, true}) {
        std::vector<float> c(static_cast<size_t>(m * (n + 3)), 5);
        SoftwareAmxKernels().product_bf16({.m = m,
                                           .n = n,
                                           .k = k,
                                           .a = a.data(),
                                           .a_transposed = transposed,
                                           .a_panel = 32,
                                           .a_step = kAStride,
                                           .b = b.data(),
                                           .b_panel = k * 32,
                                           .b_step = 32,
                                           .c = c.data(),
                                           .c_row = n + 3,
                                           .accumulate = accumulate});
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n + 3; ++j) {
            float sum = accumulate ? 5 : 0;
            for (int64_t u = 0; u < k && j < n; ++u) {
              const float left = a[transposed ? u * kAStride + i : i * kAStride + u];
              const float right = b[j / 32 * k * 32 + u * 32 + j % 32];
              sum += Half(left, 0) * Half(right, 0) + Half(left, 1) * Half(right, 1);
            }
            ASSERT_EQ(c[i * (n + 3) + j], j < n ? sum : 5)
                << m << " " << n << " " << k << ": " << i << " " << j;
          }
        }
      }
    }
  }
}

TEST(Amx, ScattersScaledRows) {
  constexpr int64_t m = 37, n = 45, k = 20, kRow = n + 3;
  const auto a = Pairs(64 * kAStride, "a"), b = Pairs(2 * k * 32, "b");
  std::vector<float> c(static_cast<size_t>(m * kRow), 5), scales;
  std::vector<float*> rows;
  for (int64_t i = 0; i < m; ++i) {
    rows.push_back(&c[(m - 1 - i) * kRow]);
    scales.push_back(static_cast<float>(i % 3));
  }
  for (const bool scaled : {true, false}) {
    std::ranges::fill(c, 5.0f);
    SoftwareAmxKernels().product_bf16({.m = m,
                                       .n = n,
                                       .k = k,
                                       .a = a.data(),
                                       .b = b.data(),
                                       .b_panel = k * 32,
                                       .b_step = 32,
                                       .c_rows = rows.data(),
                                       .scales = scaled ? scales.data() : nullptr});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < kRow; ++j) {
        float sum = 0;
        for (int64_t u = 0; u < k && j < n; ++u) {
          const float left = a[i * kAStride + u], right = b[j / 32 * k * 32 + u * 32 + j % 32];
          sum += Half(left, 0) * Half(right, 0) + Half(left, 1) * Half(right, 1);
        }
        ASSERT_EQ(rows[i][j], 5 + (scaled ? scales[i] : 1) * sum) << i << " " << j;
      }
    }
  }
}

}  // namespace
}  // namespace moebius::cpu
