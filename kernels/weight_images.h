// The forms in which products read weights (WeightFormat), made from a parameter's value.
//
// A plain image has the value's shape. The bytes of a packed F32 or BF16 image are known to the
// device's kernels alone (an accelerator's read plain ones); the image of an F64 product is the
// value itself, in every format.
#pragma once

#include <span>

#include "core/tape/tape.h"
#include "core/tensor/context.h"

namespace moebius::kernels {

// Of an image of a weight w [N, K] or [e, N, K] (plain: any shape) in dtype `compute`.
Shape WeightImageShape(const Shape& w, WeightFormat format, DType compute, const Context& context);

// Writes the image of `w` (F32; F64 gives only plain images) into `image`, whose shape is
// WeightImageShape's and whose dtype is F32 or BF16.
void PackWeight(const Tensor& w, WeightFormat format, const Tensor& image, Context& context);

// PackWeight into a tensor of its own.
Tensor MakeWeightImage(const Tensor& w, WeightFormat format, DType compute, Context& context);

// Makes the images of these parameters anew, in place, that a change of the value did not write.
void RefreshImages(std::span<Parameter* const> parameters, Context& context);

// Weights that stay on the device whole: an image is made at its first use and made again, in
// place, at the first use after a change of the value that did not write the image too (adamw.h).
class ResidentWeights final : public WeightSource {
 public:
  explicit ResidentWeights(Context& context) : context_(context) {}  // outlives the source
  Tensor Lease(Parameter& parameter, WeightFormat format, DType compute) override;

 private:
  Context& context_;
};

}  // namespace moebius::kernels
