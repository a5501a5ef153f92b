#include "kernels/weight_images.h"

#include <algorithm>

#include "kernels/cpu/weight_images.h"

namespace moebius::kernels {
namespace {

void Convert(const Tensor& w, const Tensor& image, Context& context) {
  constexpr int64_t kGrain = 1 << 15;
  context.pool().ForRange(w.size(), kGrain, [&](int64_t begin, int64_t end) {
    const auto convert = [&](const auto* from, auto* to) {
      using To = std::remove_pointer_t<decltype(to)>;
      for (int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(static_cast<float>(from[i]));
    };
    const bool narrow = image.dtype() == DType::kBF16;
    if (w.dtype() == DType::kF64) {
      narrow ? convert(w.data<double>(), image.data<BF16>())
             : convert(w.data<double>(), image.data<float>());
    } else {
      narrow ? convert(w.data<float>(), image.data<BF16>())
             : convert(w.data<float>(), image.data<float>());
    }
  });
}

}  // namespace

Shape WeightImageShape(const Shape& w, WeightFormat format, DType compute) {
  if (format == WeightFormat::kPlain || compute == DType::kF64) return w;
  CHECK(w.rank() == 2 || w.rank() == 3) << w;
  const int64_t e = w.rank() == 3 ? w[0] : 1, N = w[w.rank() - 2], K = w[w.rank() - 1];
  const bool transposed = format == WeightFormat::kPackedTransposed;
  return {e, cpu::PackedElements({.outputs = transposed ? K : N, .inputs = transposed ? N : K},
                                 compute, cpu::Simd())};
}

void PackWeight(const Tensor& w, WeightFormat format, const Tensor& image, Context& context) {
  CHECK_EQ(image.shape(), WeightImageShape(w.shape(), format, image.dtype()));
  CHECK(image.dtype() == DType::kF32 || image.dtype() == DType::kBF16) << NameOf(image.dtype());
  if (format != WeightFormat::kPlain) CHECK(w.dtype() == DType::kF32) << NameOf(w.dtype());
  const OpScope op = context.Start(Moves("pack_weight", w, image));
  if (op.is_dry() || w.size() == 0) return;
  if (format == WeightFormat::kPlain) {
    Convert(w, image, context);
  } else {
    cpu::PackWeight(w, {format == WeightFormat::kPackedTransposed, image}, context, cpu::Simd());
  }
}

Tensor MakeWeightImage(const Tensor& w, WeightFormat format, DType compute, Context& context) {
  if (compute == DType::kF64) {
    CHECK(w.dtype() == DType::kF64) << "an image in F64 is the value itself";
    return w;
  }
  const Tensor image =
      context.Empty(compute, WeightImageShape(w.shape(), format, compute), "weight_image");
  PackWeight(w, format, image, context);
  return image;
}

Tensor ResidentWeights::Lease(Parameter& parameter, WeightFormat format, DType compute) {
  if (compute == DType::kF64 ||
      (format == WeightFormat::kPlain && parameter.value.dtype() == compute)) {
    CHECK(parameter.value.dtype() == compute) << parameter.name;
    return parameter.value;
  }
  WeightImage& image = parameter.images[{format, compute}];
  if (!image.tensor.defined()) {
    image.tensor = MakeWeightImage(parameter.value, format, compute, context_);
  } else if (image.version != parameter.version) {
    PackWeight(parameter.value, format, image.tensor, context_);
  }
  image.version = parameter.version;
  return image.tensor;
}

}  // namespace moebius::kernels
