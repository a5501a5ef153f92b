// A dense, row-major array: dtype, shape, device and shared storage. Copies share the storage.
// Views only along the leading dimension (`Slice`) or of the whole (`Reshape`).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <span>
#include <string>

#include "core/base/check.h"
#include "core/tensor/arena.h"
#include "core/tensor/device.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Up to five dimensions, each >= 0.
class Shape {
 public:
  static constexpr int kMaxRank = 5;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  int64_t num_elements() const;  // 1 for rank 0
  bool operator==(const Shape& other) const = default;
  std::string ToString() const;  // "[2, 3]"

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

class Tensor {
 public:
  Tensor() = default;  // no storage: `defined()` is false
  Tensor(DType dtype, const Shape& shape, std::shared_ptr<Storage> storage, int64_t offset = 0);

  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t size() const { return size_; }  // elements
  int64_t bytes() const { return size_ * SizeOf(dtype_); }
  Device device() const { return storage_->device(); }
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // For the host to read and write. REQUIRES: T is the dtype's type, and the tensor is the host's
  // (kCpu): what lies elsewhere is copied first (core/tensor/copy.h). Constness of the elements is
  // not tracked.
  template <class T>
  T* data() const {
    CHECK(kDTypeOf<T> == dtype_) << "the tensor holds " << NameOf(dtype_);
    return reinterpret_cast<T*>(raw());
  }
  template <class T>
  std::span<T> span() const {
    return {data<T>(), static_cast<size_t>(size_)};
  }
  std::byte* raw() const {
    CHECK(defined() && device().is_cpu()) << "no bytes that the host can read";
    return static_cast<std::byte*>(storage_->data()) + offset_;
  }

  // For kernels of the tensor's device; null if undefined.
  template <class T>
  T* device_data() const {
    if (!defined()) return nullptr;
    CHECK(kDTypeOf<T> == dtype_) << "the tensor holds " << NameOf(dtype_);
    return reinterpret_cast<T*>(address());
  }
  // Where it lies on its device, whoever can read it there.
  std::byte* address() const { return static_cast<std::byte*>(storage_->data()) + offset_; }

  Tensor Slice(int64_t begin, int64_t end) const;  // rows begin .. end of the leading dimension
  Tensor Reshape(const Shape& shape) const;        // the same number of elements
  // What stands in `storage` where this stands in its own.
  Tensor In(std::shared_ptr<Storage> storage) const;

 private:
  DType dtype_ = DType::kF32;
  Shape shape_;
  int64_t size_ = 0;
  int64_t offset_ = 0;  // bytes
  std::shared_ptr<Storage> storage_;
};

// Binds a tensor's dimensions to names and checks their number: `const auto [T, D] = Dims<2>(x);`
template <size_t N>
std::array<int64_t, N> Dims(const Tensor& x) {
  CHECK_EQ(x.shape().rank(), static_cast<int>(N)) << x.shape();
  std::array<int64_t, N> dims;
  for (size_t i = 0; i < N; ++i) dims[i] = x.shape()[static_cast<int>(i)];
  return dims;
}

// Ragged rows: `count` rows of `tensor` [capacity, ...] are valid; what lies beyond is never read.
// On the CPU capacity and count are equal.
struct Rows {
  Tensor tensor;
  int64_t capacity = 0;  // known to the host
  Tensor count;          // [1] int32, on the device
};

}  // namespace moebius
