// The bodies of RowKernels. Included by simd_inl.h.
#pragma once

#include "kernels/cpu/simd_lanes_inl.h"

namespace moebius::cpu {
namespace {

#define MOEBIUS_LANES __attribute__((always_inline))  // a call in a loop would cost more than it

template <class T, int kWidth, class Rounding>
struct RowBodies {
  using L = Lanes<kWidth, Rounding>;
  using F = Float<kWidth>;
  using V = typename F::V;

  static void SwiGlu(const T* gate, const T* up, T* h, Write write, int64_t n) {
    ForPairs<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const auto g = L::Load(gate + i, lanes);
      L::Store(h + i, g * L::Logistic(g) * L::Load(up + i, lanes), write, lanes);
    });
  }

  static void SwiGluGradient(const SwiGluGradientRow<T>& row, int64_t n) {
    const SwiGluGradientRow<T> a = row;
    ForPairs<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const auto g = L::Load(a.gate + i, lanes), u = L::Load(a.up + i, lanes);
      const auto s = L::Logistic(g), ds = L::Load(a.dh + i, lanes) * s;
      L::Store(a.dgate + i, ds * u * (1.0f + g * (1.0f - s)), a.write_dgate, lanes);
      L::Store(a.dup + i, ds * g, a.write_dup, lanes);
    });
  }

  static float WeightedSwiGluGradient(const WeightedSwiGluGradientRow<T>& row, int64_t n) {
    const WeightedSwiGluGradientRow<T> a = row;
    return SumPairs<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const auto g = L::Load(a.gate + i, lanes), u = L::Load(a.up + i, lanes);
      const auto product = L::template LoadBeside<T>(a.product + i, lanes), s = L::Logistic(g);
      const auto h = g * s * u, ds = a.weight * product * s;
      L::Store(a.dgate + i, ds * u * (1.0f + g * (1.0f - s)), lanes);
      L::Store(a.dup + i, ds * g, lanes);
      L::Store(a.h + i, a.weight * h, lanes);
      return h * product;
    });
  }

  static float Max(const T* x, int64_t n) {
    const T lowest = sizeof(T) == sizeof(uint16_t) ? T(0xFF80) : T(-__builtin_inff());
    V max = F::Set(-__builtin_inff());
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes)
                            MOEBIUS_LANES { max = F::Max(L::Load(x + i, lanes, lowest), max); });
    return Reduce<kWidth>(max, F::Max);
  }

  // Below -87, as there.
  MOEBIUS_LANES static V ExpOfNegative(V x) { return L::Exp(F::Max(F::Set(-87), x)); }

  static void Softmax(const T* z, T* p, int64_t rows, int64_t n) {
    const T lowest = sizeof(T) == sizeof(uint16_t) ? T(0xFF80) : T(-__builtin_inff());
    for (; rows > 0; --rows, z += n, p += n) {
      const float max = Max(z, n);
      V sum = {};
      ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
        const V e = ExpOfNegative(L::Load(z + i, lanes, lowest) - max);
        if constexpr (sizeof(T) == sizeof(float)) L::Store(p + i, e, lanes);
        sum += e;
      });
      const float factor = 1.0f / Sum<kWidth>(sum);
      ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
        if constexpr (sizeof(T) == sizeof(float)) {
          L::Store(p + i, L::Load(p + i, lanes) * factor, lanes);
        } else {
          L::Store(p + i, ExpOfNegative(L::Load(z + i, lanes) - max) * factor, lanes);
        }
      });
    }
  }

  static float Dot(const T* a, const T* b, int64_t n) {
    return SumPairs<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      return L::Load(a + i, lanes) * L::Load(b + i, lanes);
    });
  }

  static float WeightedDot(const T* a, const T* b, const float* w, int64_t n) {
    return SumLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      return L::Load(a + i, lanes) * L::Load(w + i, lanes) * L::Load(b + i, lanes);
    });
  }

  static void Normalize(const T* x, const float* w, float rstd, T* y, Write write, int64_t n) {
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      L::Store(y + i, L::Load(x + i, lanes) * rstd * L::Load(w + i, lanes), write, lanes);
    });
  }

  static void NormalizeGradient(const RmsNormGradientRow<T>& row, int64_t n) {
    const RmsNormGradientRow<T> a = row;
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const V dxw = L::Load(a.dy + i, lanes) * L::Load(a.w + i, lanes);
      L::Store(a.dx + i, a.rstd * (dxw - L::Load(a.x + i, lanes) * a.along_x), a.write, lanes);
    });
  }

  static void AddScaledProducts(const T* a, const T* b, float scale, float* sum, int64_t n) {
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      L::Store(sum + i, L::Load(a + i, lanes) * L::Load(b + i, lanes) * scale, Write::kAdd, lanes);
    });
  }

  static void Turn(const TurnRow<T>& row) {
    TurnRow<T> a = row;
    for (; a.heads > 0; --a.heads, a.x += 2 * a.half, a.y += 2 * a.half) {
      ForLanes<kWidth>(a.half, [&](int64_t i, auto lanes) MOEBIUS_LANES {
        const V first = L::Load(a.x + i, lanes), second = L::Load(a.x + a.half + i, lanes);
        const V cos = L::Load(a.cos + i, lanes), sin = L::Load(a.sin + i, lanes);
        L::Store(a.y + i, first * cos - second * sin, a.write, lanes);
        L::Store(a.y + a.half + i, second * cos + first * sin, a.write, lanes);
      });
    }
  }

  static void SumRows(const RowSum<T>& sum, int64_t n) {
    constexpr int64_t kPair = 2 * kWidth, kStep = 2 * kPair;
    const RowSum<T> a = sum;
    const auto weight = [&](int64_t r) { return a.weights != nullptr ? a.weights[r] : 1.0f; };
    int64_t i = 0;
    for (; i + kStep <= n; i += kStep) {
      Two<V> first = {}, second = {};
      for (int64_t r = 0; r < a.count; ++r) {
        first = first + weight(r) * L::Load(a.rows[r] + i, Pair{});
        second = second + weight(r) * L::Load(a.rows[r] + i + kPair, Pair{});
      }
      L::Store(a.y + i, first, a.write, Pair{});
      L::Store(a.y + i + kPair, second, a.write, Pair{});
    }
    ForLanes<kWidth>(n - i, [&](int64_t j, auto lanes) MOEBIUS_LANES {
      V y = {};
      for (int64_t r = 0; r < a.count; ++r) y += weight(r) * L::Load(a.rows[r] + i + j, lanes);
      L::Store(a.y + i + j, y, a.write, lanes);
    });
  }

  static float WeighGradient(const WeighRowGradient<T>& row, int64_t n) {
    const WeighRowGradient<T> a = row;
    return SumPairs<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const auto x = L::Load(a.x + i, lanes), dy = L::Load(a.dy + i, lanes);
      L::Store(a.dx + i, a.weight * dy, a.write_dx, lanes);
      return x * dy;
    });
  }

  static void Scale(const float* x, float scale, T* y, Write write, int64_t n) {
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      L::Store(y + i, L::Load(x + i, lanes) * scale, write, lanes);
    });
  }

  static void Add(const T* x, float* sum, Write write, int64_t n) {
    ForLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      L::Store(sum + i, L::Load(x + i, lanes), write, lanes);
    });
  }

  static void Copy(const T* x, T* y, Write write, int64_t n) {
    constexpr int64_t kLine = 64 / sizeof(T);
    typedef float Line __attribute__((vector_size(4 * kWidth)));
    if (write != Write::kStream) return (void)__builtin_memcpy(y, x, n * sizeof(T));
    for (; n >= kLine; n -= kLine, x += kLine, y += kLine) {
      for (int64_t i = 0; i < kLine; i += sizeof(Line) / sizeof(T)) {
        Line line;
        __builtin_memcpy(&line, x + i, sizeof line);
        StreamVector(y + i, line);
      }
    }
  }

  static float ExpSum(const float* x, float shift, float* e, int64_t n) {
    return SumLanes<kWidth>(n, [&](int64_t i, auto lanes) MOEBIUS_LANES {
      const V y = ExpOfNegative(L::Load(x + i, lanes, -__builtin_inff()) - shift);
      if (e != nullptr) L::Store(e + i, y, lanes);
      return y;
    });
  }
};

template <class T, int kWidth, class Rounding>
RowKernels<T> MakeRowKernels() {
  using Bodies = RowBodies<T, kWidth, Rounding>;
  return {.swiglu = Bodies::SwiGlu,
          .swiglu_gradient = Bodies::SwiGluGradient,
          .weighted_swiglu_gradient = Bodies::WeightedSwiGluGradient,
          .softmax = Bodies::Softmax,
          .dot = Bodies::Dot,
          .weighted_dot = Bodies::WeightedDot,
          .normalize = Bodies::Normalize,
          .normalize_gradient = Bodies::NormalizeGradient,
          .add_scaled_products = Bodies::AddScaledProducts,
          .turn = Bodies::Turn,
          .sum_rows = Bodies::SumRows,
          .weigh_gradient = Bodies::WeighGradient,
          .scale = Bodies::Scale,
          .add = Bodies::Add,
          .copy = Bodies::Copy};
}

}  // namespace
}  // namespace moebius::cpu
