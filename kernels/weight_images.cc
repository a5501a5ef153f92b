#include "kernels/weight_images.h"

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace moebius::kernels {

Shape WeightImageShape(const Shape& w, WeightFormat format, DType compute, const Context& context) {
  CHECK(w.rank() == 2 || w.rank() == 3 || format == WeightFormat::kPlain) << w;
  const bool is_packed = context.packs_weights() && format != WeightFormat::kPlain;
  return is_packed && compute != DType::kF64 ? cpu::PackedShape(w, format, compute) : w;
}

void PackWeight(const Tensor& w, WeightFormat format, const Tensor& image, Context& context) {
  CHECK_EQ(image.shape(), WeightImageShape(w.shape(), format, image.dtype(), context));
  CHECK(image.dtype() == DType::kF32 || image.dtype() == DType::kBF16) << NameOf(image.dtype());
  if (format != WeightFormat::kPlain) CHECK(w.dtype() == DType::kF32) << NameOf(w.dtype());
  const OpScope op = context.Start(Moves("pack_weight", w, image));
  if (op.is_dry() || w.size() == 0) return;
  BackendFor(format == WeightFormat::kPlain ? w.dtype() : image.dtype(), context)
      .pack_weight(w, format, image, context);
}

Tensor MakeWeightImage(const Tensor& w, WeightFormat format, DType compute, Context& context) {
  if (compute == DType::kF64) {
    CHECK(w.dtype() == DType::kF64) << "an image in F64 is the value itself";
    return w;
  }
  const Tensor image =
      context.Empty(compute, WeightImageShape(w.shape(), format, compute, context), "weight_image");
  PackWeight(w, format, image, context);
  return image;
}

void RefreshImages(std::span<Parameter* const> parameters, Context& context) {
  for (Parameter* parameter : parameters) {
    for (auto& [key, image] : parameter->images) {
      if (image.version == parameter->version) continue;
      PackWeight(parameter->value, key.first, image.tensor, context);
      image.version = parameter->version;
    }
  }
}

Tensor ResidentWeights::Lease(Parameter& parameter, WeightFormat format, DType compute) {
  if (!context_.packs_weights()) format = WeightFormat::kPlain;
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
