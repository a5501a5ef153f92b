#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/dtype.h"
#include "kernels/cpu/simd.h"

namespace moebius::cpu {
namespace {

constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 33, 64, 100, 131};

float Value(float x) { return x; }
float Value(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
void Set(float* slot, float x) { *slot = x; }
void Set(uint16_t* slot, float x) { *slot = BF16(x).bits; }

template <class T>
const RowKernels<T>& Kernels(const SimdKernels& simd) {
  if constexpr (std::is_same_v<T, float>) {
    return simd.rows;
  } else {
    return simd.rows_bf16;
  }
}

template <class T>
std::vector<T> Random(int64_t n, const char* name, float scale = 1) {
  const RandomStream stream(1, name);
  std::vector<T> x(n);
  for (int64_t i = 0; i < n; ++i)
    Set(&x[i], scale * static_cast<float>(stream.Normal(static_cast<uint64_t>(i))));
  return x;
}

// One rounding to T, and a few of float.
template <class T>
void ExpectNear(T actual, double expected, double scale = 0) {
  const double roundoff = std::is_same_v<T, float> ? 0x1p-20 : 0x1p-8;
  EXPECT_NEAR(Value(actual), expected, roundoff * std::max(std::abs(expected), scale) + 1e-30);
}

template <class T>
class SimdRows : public testing::Test {
 protected:
  // Calls fn(kernels, n) for every instruction set and size.
  template <class Fn>
  void ForAll(const Fn& fn) {
    for (const SimdKernels* simd : SupportedSimd()) {
      for (const int64_t n : kSizes) {
        SCOPED_TRACE(std::string(simd->name) + " " + std::to_string(n));
        fn(Kernels<T>(*simd), n);
      }
    }
  }
};
using Elements = testing::Types<float, uint16_t>;
TYPED_TEST_SUITE(SimdRows, Elements);

TYPED_TEST(SimdRows, SwiGluOfAnySize) {
  using T = TypeParam;
  this->ForAll([](const RowKernels<T>& kernels, int64_t n) {
    const auto gate = Random<T>(n, "gate", 20), up = Random<T>(n, "up");
    std::vector<T> h(n + 1, T(77));
    kernels.swiglu(gate.data(), up.data(), h.data(), Write::kReplace, n);
    for (int64_t i = 0; i < n; ++i) {
      const double g = Value(gate[i]);
      ExpectNear(h[i], g / (1 + std::exp(-g)) * Value(up[i]), 1e-30);
    }
    EXPECT_EQ(h[n], T(77)) << "written beyond the end";
  });
}

TYPED_TEST(SimdRows, SwiGluOfExtremesAndNaN) {
  using T = TypeParam;
  for (const SimdKernels* simd : SupportedSimd()) {
    std::vector<T> gate(64), one(64), h(64);
    for (int i = 0; i < 64; ++i) Set(&gate[i], i % 2 == 0 ? -3e38f : 3e38f), Set(&one[i], 1);
    Set(&gate[5], NAN);
    Kernels<T>(*simd).swiglu(gate.data(), one.data(), h.data(), Write::kReplace, 64);
    for (int i = 0; i < 64; ++i) {
      if (i == 5) {
        EXPECT_TRUE(std::isnan(Value(h[i]))) << simd->name;
      } else {
        EXPECT_EQ(h[i] == gate[i], i % 2 == 1) << simd->name << " " << i;
        EXPECT_FALSE(std::isnan(Value(h[i]))) << simd->name << " " << i;
      }
    }
  }
}

TYPED_TEST(SimdRows, WritesReplaceAddAndStream) {
  using T = TypeParam;
  constexpr int64_t kN = 128;
  for (const SimdKernels* simd : SupportedSimd()) {
    const auto x = Random<float>(kN, "x"), before = Random<float>(kN, "y");
    alignas(64) T y[kN];
    for (const Write write : {Write::kReplace, Write::kAdd, Write::kStream}) {
      for (int64_t i = 0; i < kN; ++i) Set(&y[i], before[i]);
      const std::vector<T> old(y, y + kN);
      Kernels<T>(*simd).scale(x.data(), 2, y, write, kN);
      simd->scores.fence();
      for (int64_t i = 0; i < kN; ++i)
        ExpectNear(y[i], 2 * x[i] + (write == Write::kAdd ? Value(old[i]) : 0), 1);
    }
    alignas(64) T copy[kN];
    Kernels<T>(*simd).copy(y, copy, Write::kStream, kN);
    simd->scores.fence();
    EXPECT_TRUE(std::equal(y, y + kN, copy)) << simd->name;
  }
}

TYPED_TEST(SimdRows, SumsRowsThatStandAnywhere) {
  using T = TypeParam;
  this->ForAll([](const RowKernels<T>& kernels, int64_t n) {
    const auto x = Random<T>(3 * n, "x");
    const std::vector<float> weights = {0.5, -2, 3};
    const T* rows[] = {x.data() + 2 * n, x.data(), x.data() + n};
    std::vector<T> y(n);
    for (const int64_t count : {0, 1, 3}) {
      kernels.sum_rows({.rows = rows,
                        .weights = weights.data(),
                        .count = count,
                        .y = y.data(),
                        .write = Write::kReplace},
                       n);
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t r = 0; r < count; ++r) sum += double{weights[r]} * Value(rows[r][i]);
        ExpectNear(y[i], sum, std::is_same_v<T, float> ? 1 : 0);
      }
    }
  });
}

TYPED_TEST(SimdRows, GradientOfAWeighedSwiGlu) {
  using T = TypeParam;
  this->ForAll([](const RowKernels<T>& kernels, int64_t n) {
    const auto gate = Random<T>(n, "gate"), up = Random<T>(n, "up");
    const auto product = Random<float>(n, "product");
    std::vector<T> dgate(n), dup(n), h(n);
    constexpr float kWeight = 0.75;
    const float sum = kernels.weighted_swiglu_gradient({.gate = gate.data(),
                                                        .up = up.data(),
                                                        .product = product.data(),
                                                        .weight = kWeight,
                                                        .dgate = dgate.data(),
                                                        .dup = dup.data(),
                                                        .h = h.data()},
                                                       n);
    double expected = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double g = Value(gate[i]), u = Value(up[i]), s = 1 / (1 + std::exp(-g));
      const double dh = double{kWeight} * product[i];
      ExpectNear(dgate[i], dh * u * s * (1 + g * (1 - s)), 1);
      ExpectNear(dup[i], dh * g * s);
      ExpectNear(h[i], kWeight * g * s * u);
      expected += g * s * u * product[i];
    }
    EXPECT_NEAR(sum, expected, 1e-4);
  });
}

TYPED_TEST(SimdRows, WeighsARow) {
  using T = TypeParam;
  this->ForAll([](const RowKernels<T>& kernels, int64_t n) {
    const auto x = Random<T>(n, "x"), dy = Random<T>(n, "dy");
    std::vector<T> dx(n);
    const float sum = kernels.weigh_gradient(
        {.dy = dy.data(), .x = x.data(), .weight = 3, .dx = dx.data(), .write_dx = Write::kReplace},
        n);
    double expected = 0;
    for (int64_t i = 0; i < n; ++i) {
      expected += double{Value(x[i])} * Value(dy[i]);
      ExpectNear(dx[i], 3.0 * Value(dy[i]));
    }
    EXPECT_NEAR(sum, expected, 1e-4);
    EXPECT_EQ(sum, kernels.dot(x.data(), dy.data(), n));
  });
}

TEST(SimdScores, MaxAndSumOfExponentials) {
  for (const SimdKernels* simd : SupportedSimd()) {
    for (const int64_t n : kSizes) {
      SCOPED_TRACE(std::string(simd->name) + " " + std::to_string(n));
      const auto x = Random<float>(n, "x", 10);
      const float max = *std::ranges::max_element(x);
      EXPECT_EQ(simd->scores.max(x.data(), n), max);
      std::vector<float> e(n);
      const float sum = simd->scores.exp_sum(x.data(), max, e.data(), n);
      EXPECT_EQ(simd->scores.exp_sum(x.data(), max, nullptr, n), sum);
      double expected = 0;
      for (int64_t i = 0; i < n; ++i) {
        expected += std::exp(double{x[i]} - max);
        EXPECT_NEAR(e[i] / std::exp(double{x[i] - max}), 1, 0x1p-22);
      }
      EXPECT_NEAR(sum / expected, 1, 1e-6);
    }
  }
}

// As choosing one after the other, where the lower of equals comes first.
TEST(SimdScores, TopKOfTiesInfinitiesAndNaN) {
  constexpr int64_t kTokens = 37;
  const RandomStream stream(1, "scores");
  for (const SimdKernels* simd : SupportedSimd()) {
    for (const int64_t E : {1, 5, 16, 37, 64}) {
      for (const int64_t k : {1, 2, 3, 4, 7, 8, 16}) {
        if (k > E) continue;
        SCOPED_TRACE(std::string(simd->name) + " " + std::to_string(k) + " of " +
                     std::to_string(E));
        std::vector<float> scores(kTokens * E), bias(E, 0.0f);
        for (size_t i = 0; i < scores.size(); ++i)
          scores[i] = static_cast<float>(stream.Below(i, 9)) - 4;
        for (int64_t e = 0; e < E; ++e) {
          scores[e] = -INFINITY;
          scores[E + e] = NAN;
        }
        bias[E - 1] = 1;
        std::vector<int32_t> experts(kTokens * k);
        simd->scores.top_k(scores.data(), bias.data(), kTokens, E, k, experts.data());
        for (int64_t t = 0; t < kTokens; ++t) {
          std::vector<int32_t> order(E);
          for (int64_t e = 0; e < E; ++e) order[e] = static_cast<int32_t>(e);
          std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
            return scores[t * E + a] + bias[a] > scores[t * E + b] + bias[b];
          });
          order.resize(k);
          EXPECT_EQ(std::vector<int32_t>(&experts[t * k], &experts[t * k] + k), order) << t;
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::cpu
