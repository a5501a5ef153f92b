#include "core/tensor/tensor.h"

#include <utility>

namespace moebius {

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  CHECK_LE(rank_, kMaxRank);
  for (int i = 0; i < rank_; ++i) {
    CHECK_GE(dims[i], 0) << "dimension " << i;
    dims_[i] = dims[i];
  }
}

int64_t Shape::num_elements() const {
  int64_t product = 1;
  for (const int64_t dim : *this) product *= dim;
  return product;
}

std::string Shape::ToString() const {
  std::string text = "[";
  for (const int64_t dim : *this) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(dim);
  }
  return text + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.ToString(); }

Tensor::Tensor(DType dtype, const Shape& shape, std::shared_ptr<Storage> storage, int64_t offset)
    : dtype_(dtype),
      shape_(shape),
      size_(shape.num_elements()),
      offset_(offset),
      storage_(std::move(storage)) {
  CHECK_LE(offset_ + bytes(), storage_->bytes()) << shape_;
}

Tensor Tensor::Slice(int64_t begin, int64_t end) const {
  CHECK_GE(shape_.rank(), 1);
  CHECK(0 <= begin && begin <= end && end <= shape_[0])
      << begin << " .. " << end << " of " << shape_;
  const int64_t row_bytes = shape_[0] == 0 ? 0 : bytes() / shape_[0];
  Shape shape = shape_;
  shape[0] = end - begin;
  return Tensor(dtype_, shape, storage_, offset_ + begin * row_bytes);
}

Tensor Tensor::Reshape(const Shape& shape) const {
  CHECK_EQ(shape.num_elements(), size_) << shape_ << " to " << shape;
  return Tensor(dtype_, shape, storage_, offset_);
}

Tensor Tensor::In(std::shared_ptr<Storage> storage) const {
  return Tensor(dtype_, shape_, std::move(storage), offset_);
}

}  // namespace moebius
