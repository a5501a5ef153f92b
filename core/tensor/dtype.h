// Element types and their C++ counterparts.
#pragma once

#include <bit>
#include <cstdint>

namespace moebius {

enum class DType : uint8_t { kF64, kF32, kBF16, kI32, kI64, kU8 };

int64_t SizeOf(DType dtype);      // bytes of one element
const char* NameOf(DType dtype);  // "F64", "F32", "BF16", "I32", "I64", "U8" as in safetensors
bool IsFloat(DType dtype);

// The upper half of a float. Conversion from float rounds to nearest, ties to even; NaN stays NaN.
struct BF16 {
  uint16_t bits = 0;

  BF16() = default;
  explicit constexpr BF16(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) {
      bits = static_cast<uint16_t>(u >> 16 | 0x40);
    } else {
      u += 0x7FFFu + (u >> 16 & 1);
      bits = static_cast<uint16_t>(u >> 16);
    }
  }
  explicit constexpr operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};

template <class T>
struct DTypeOfImpl;
template <>
struct DTypeOfImpl<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOfImpl<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOfImpl<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOfImpl<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOfImpl<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOfImpl<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <class T>
inline constexpr DType kDTypeOf = DTypeOfImpl<T>::value;

}  // namespace moebius
