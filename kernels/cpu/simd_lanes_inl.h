// What rows are computed with, for a vector of kWidth floats: its lanes from and to memory as float
// or bf16, e^x, and loops over whole vectors and the lanes that remain. Included by simd_inl.h.
#pragma once

#include <cstdint>

namespace moebius::cpu {
namespace {

// Which lanes stand in memory: of one vector, or of a pair of them.
struct Pair {};
struct Whole {};
struct Part {
  int64_t count;
};

// As many lanes of other types.
template <int kWidth>
struct Bits32 {
  typedef uint32_t V __attribute__((vector_size(4 * kWidth)));
  typedef uint32_t Unaligned __attribute__((vector_size(4 * kWidth), aligned(2), may_alias));
};
template <int kWidth>
struct Bits16 {
  typedef uint16_t V __attribute__((vector_size(2 * kWidth)));
  typedef uint16_t Unaligned __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));
};

// Two vectors that are computed with alike.
template <class V>
struct Two {
  V a, b;
  friend Two operator+(Two x, Two y) { return {x.a + y.a, x.b + y.b}; }
  friend Two operator-(Two x, Two y) { return {x.a - y.a, x.b - y.b}; }
  friend Two operator*(Two x, Two y) { return {x.a * y.a, x.b * y.b}; }
  friend Two operator*(float x, Two y) { return {x * y.a, x * y.b}; }
  friend Two operator+(float x, Two y) { return {x + y.a, x + y.b}; }
  friend Two operator-(float x, Two y) { return {x - y.a, x - y.b}; }
};

// Rounding to the bits of bf16: to nearest, ties to even; NaN stays NaN.
struct RoundBits {
  template <int kWidth>
  [[gnu::always_inline]] static typename Bits16<kWidth>::V Round(typename Float<kWidth>::V x) {
    return __builtin_convertvector(UpperHalf<kWidth>(x) >> 16, typename Bits16<kWidth>::V);
  }
  // As the lower and upper half of each lane.
  template <int kWidth>
  [[gnu::always_inline]] static typename Bits32<kWidth>::V Round(Two<typename Float<kWidth>::V> x) {
    return UpperHalf<kWidth>(x.a) >> 16 | (UpperHalf<kWidth>(x.b) & 0xFFFF0000u);
  }

 private:
  template <int kWidth>
  [[gnu::always_inline]] static typename Bits32<kWidth>::V UpperHalf(typename Float<kWidth>::V x) {
    const auto u = (typename Bits32<kWidth>::V)x;
    return x == x ? u + 0x7FFFu + (u >> 16 & 1) : u | 0x400000u;
  }
};

template <int kWidth, class Rounding>
struct Lanes {
  using F = Float<kWidth>;
  using V = typename F::V;
  using Unaligned = typename Bits16<kWidth>::Unaligned;

  [[gnu::always_inline]] static V Load(const float* x, Whole) { return F::Load(x); }
  [[gnu::always_inline]] static V Load(const uint16_t* x, Whole) {
    const typename Bits16<kWidth>::V bits = *reinterpret_cast<const Unaligned*>(x);
    return (V)(__builtin_convertvector(bits, typename Bits32<kWidth>::V) << 16);
  }
  [[gnu::always_inline]] static void Store(float* x, V v, Whole) { F::Store(x, v); }
  [[gnu::always_inline]] static void Store(uint16_t* x, V v, Whole) {
    *reinterpret_cast<Unaligned*>(x) = Rounding::template Round<kWidth>(v);
  }

  // Pairs of float are one after the other; of bf16, elements in turn: what is computed of several
  // must be of one T.
  [[gnu::always_inline]] static Two<V> Load(const float* x, Pair) {
    return {F::Load(x), F::Load(x + kWidth)};
  }
  [[gnu::always_inline]] static Two<V> Load(const uint16_t* x, Pair) {
    using U = typename Bits32<kWidth>::Unaligned;
    const typename Bits32<kWidth>::V bits = *reinterpret_cast<const U*>(x);
    return {(V)(bits << 16), (V)(bits & 0xFFFF0000u)};
  }
  [[gnu::always_inline]] static void Store(float* x, Two<V> v, Pair) {
    F::Store(x, v.a);
    F::Store(x + kWidth, v.b);
  }
  [[gnu::always_inline]] static void Store(uint16_t* x, Two<V> v, Pair) {
    using U = typename Bits32<kWidth>::Unaligned;
    *reinterpret_cast<U*>(x) = Rounding::template Round<kWidth>(v);
  }

  // Floats beside elements of T.
  template <class T, class Which>
  [[gnu::always_inline]] static auto LoadBeside(const float* x, Which lanes) {
    return Load(x, lanes);
  }
  template <class T>
  [[gnu::always_inline]] static Two<V> LoadBeside(const float* x, Pair pair) {
    const Two<V> v = Load(x, pair);
    if constexpr (sizeof(T) == sizeof(float)) return v;
    typename F::I even = {}, odd = {};
    for (int i = 0; i < kWidth; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
    return {__builtin_shuffle(v.a, v.b, even), __builtin_shuffle(v.a, v.b, odd)};
  }

  // Lanes that are not there are `missing`.
  template <class T>
  [[gnu::always_inline]] static V Load(const T* x, Part part, T missing = 0) {
    T lanes[kWidth];
    for (T& lane : lanes) lane = missing;
    __builtin_memcpy(lanes, x, part.count * sizeof(T));
    return Load(lanes, Whole{});
  }
  template <class T>
  [[gnu::always_inline]] static V Load(const T* x, Whole whole, T) {
    return Load(x, whole);
  }
  template <class T>
  [[gnu::always_inline]] static void Store(T* x, V v, Part part) {
    T lanes[kWidth];
    Store(lanes, v, Whole{});
    __builtin_memcpy(x, lanes, part.count * sizeof(T));
  }
  template <class T, class Vectors, class Which>
  [[gnu::always_inline]] static void Store(T* x, Vectors v, Write write, Which lanes) {
    if (write == Write::kStream) return Stream(x, v, lanes);
    Store(x, write == Write::kAdd ? Load(x, lanes) + v : v, lanes);
  }

  [[gnu::always_inline]] static void Stream(float* x, V v, Whole) { StreamVector(x, v); }
  [[gnu::always_inline]] static void Stream(uint16_t* x, V v, Whole) {
    StreamVector(x, Rounding::template Round<kWidth>(v));
  }
  [[gnu::always_inline]] static void Stream(float* x, Two<V> v, Pair) {
    StreamVector(x, v.a);
    StreamVector(x + kWidth, v.b);
  }
  [[gnu::always_inline]] static void Stream(uint16_t* x, Two<V> v, Pair) {
    StreamVector(x, Rounding::template Round<kWidth>(v));
  }
  template <class T>
  [[gnu::always_inline]] static void Stream(T* x, V v, Part part) {
    Store(x, v, part);
  }

  // e^x to 2 units in the last place for x in [-87, 88]; NaN stays NaN. The
  // polynomial is the one of degree 6, exact in its first two terms, whose largest relative error
  // is least, 2^-27.
  [[gnu::always_inline]] static V Exp(V x) {
    constexpr float kRound = 12582912.0f + 127;  // see Exp2
    const V shifted = x * kLog2E + kRound, n = shifted - kRound;
    const V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = F::Set(1.38144667e-3f);
    p = p * r + 8.36878043e-3f;
    p = p * r + 0.0416683942f;
    p = p * r + 0.166665201f;
    p = p * r + 0.499999934f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (V)((typename F::I)shifted << 23);
  }

  // 1 / x to a unit in the last place, for x in [1, 2^126].
  [[gnu::always_inline]] static V Reciprocal(V x) {
#if defined(__AVX512F__)
    if constexpr (kWidth == 16) {
      const V y = __builtin_ia32_rcp14ps512_mask(x, V{}, 0xFFFF);
      return y + y * (1.0f - x * y);
    }
#endif
    return 1.0f / x;
  }

  [[gnu::always_inline]] static V Logistic(V z) {
    const V low = F::Set(87) < z ? F::Set(87) : z;
    return Reciprocal(1.0f + Exp(-F::Max(F::Set(-88), low)));
  }
  [[gnu::always_inline]] static Two<V> Logistic(Two<V> z) { return {Logistic(z.a), Logistic(z.b)}; }
};

// Calls fn(i, lanes) for the vectors of [0, n).
template <int kWidth, class Fn>
[[gnu::always_inline]] inline void ForLanes(int64_t n, const Fn& fn) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) fn(i, Whole{});
  if (i < n) fn(i, Part{n - i});
}

// ... for pairs of vectors first, where all operands are of one type.
template <int kWidth, class Fn>
[[gnu::always_inline]] inline void ForPairs(int64_t n, const Fn& fn) {
  int64_t i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) fn(i, Pair{});
  if (i + kWidth <= n) {
    fn(i, Whole{});
    i += kWidth;
  }
  if (i < n) fn(i, Part{n - i});
}

// The sum over [0, n) of what fn(i, lanes) gives, in four parts that do not wait for each other.
template <int kWidth, class Fn>
[[gnu::always_inline]] inline float SumLanes(int64_t n, const Fn& fn) {
  typename Float<kWidth>::V sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    for (int part = 0; part < 4; ++part) sum[part] += fn(i + part * kWidth, Whole{});
  }
  for (; i + kWidth <= n; i += kWidth) sum[0] += fn(i, Whole{});
  if (i < n) sum[1] += fn(i, Part{n - i});
  return Sum<kWidth>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// ... of pairs first.
template <int kWidth, class Fn>
[[gnu::always_inline]] inline float SumPairs(int64_t n, const Fn& fn) {
  Two<typename Float<kWidth>::V> sum = {}, other = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    sum = sum + fn(i, Pair{});
    other = other + fn(i + 2 * kWidth, Pair{});
  }
  for (; i + kWidth <= n; i += kWidth) sum.a += fn(i, Whole{});
  if (i < n) sum.b += fn(i, Part{n - i});
  return Sum<kWidth>((sum.a + sum.b) + (other.a + other.b));
}

}  // namespace
}  // namespace moebius::cpu
