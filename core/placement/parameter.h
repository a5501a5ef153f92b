// What a model is made of, as plain values: trained parameters, untrained buffers, and the images
// of a parameter that products read.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/placement/placement.h"

namespace moebius {

// Parameters that are reduced over other groups of ranks, or that phases may train apart.
enum class ParameterGroup { kDense, kExpert, kRouter };

// How a parameter starts. Draws are functions of (seed, name, global index), so every layout starts
// from the same bits.
struct Initializer {
  enum class Kind { kNormal, kOnes, kZeros } kind = Kind::kNormal;
  double standard_deviation = 0.02;
};

// The forms in which a product reads a weight. Images are derived from the value, rebuilt after its
// update, and never checkpointed. What the bytes of a packed image mean is known to its device's
// kernels alone (kernels/weight_images.h).
enum class WeightFormat {
  kPlain,             // row-major, in the compute dtype
  kPacked,            // for y = x w^T
  kPackedTransposed,  // for dx = dy w
};

struct WeightImage {
  Tensor tensor;
  int64_t version = -1;  // of the value it was made from
};

// One rank's share of a trained tensor. The name is logical and unfused
// ("layers.3.attention.q.weight"); an expert is a dimension; layers are numbered globally.
struct Parameter {
  std::string name;
  Placement placement;
  ParameterGroup group = ParameterGroup::kDense;
  Initializer initializer;
  bool weight_decay = true;

  // Master: F32, or F64 where everything is computed in FP64. Where the ranks share it out, it has
  // bytes only while it is gathered (WeightSource), and is NoValue else.
  Tensor value;
  Tensor gradient;  // a view of its bucket, while that exists: F32 or F64, same shape

  // Ops of one micro-batch that write its gradient: 2 where a head shares the embedding.
  int num_uses = 1;
  bool gradient_written = false;  // within this step: the first writer writes, later ones add
  int64_t version = 0;            // raised by every update of `value`
  std::map<std::pair<WeightFormat, DType>, WeightImage> images = {};
};

// A value of which only dtype and shape are known: a tensor on kMeta that takes no memory.
inline Tensor NoValue(DType dtype, const Shape& shape) {
  return Tensor(dtype, shape,
                std::make_shared<Storage>(nullptr, std::numeric_limits<int64_t>::max(), kMeta));
}

// State that is not trained: expert biases, the global expert counts of the last step. Replicated;
// checkpointed like a parameter.
struct Buffer {
  std::string name;
  Tensor value;
};

}  // namespace moebius
