// The gradients of all parameters, in one flat buffer for each (reduction group, dtype): so one
// all-reduce carries many tensors. What is summed over which ranks is read from each parameter's
// Placement: the axes on which its gradient arrives as a part.
#pragma once

#include <span>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"
#include "parallel/mesh.h"

namespace moebius {

class GradientBuckets {
 public:
  // Gives every parameter its `gradient`: a view with the shape and dtype of its `value`. The
  // parameters come in one order on every rank; they, the mesh and the context outlive this.
  GradientBuckets(std::span<Parameter* const> parameters, Mesh& mesh, Context& context);

  // Before the first backward of a step. Nothing is zeroed: the first writer of a gradient writes.
  void BeginStep();

  // After the last backward of the step: every rank then holds the sum over its reduction group. A
  // gradient that nobody here has written counts as zero.
  void Reduce();

 private:
  struct Bucket {
    Communicator* group = nullptr;
    DType dtype = DType::kF32;
    int64_t size = 0;
    Tensor flat;
    std::vector<Parameter*> parameters;
    std::vector<int64_t> offsets;
  };

  Bucket& BucketOf(const Parameter& parameter, Mesh& mesh);

  std::vector<Bucket> buckets_;
};

}  // namespace moebius
