// The parameters and buffers of a model on one rank, in one canonical order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/placement/parameter.h"
#include "core/tensor/context.h"

namespace moebius {

class ParameterStore {
 public:
  // allocates_values: else parameters have NoValue, and others hold what belongs to this rank.
  ParameterStore(Context& context, const MeshPosition& position, DType master,
                 bool allocates_values = true)
      : context_(context),
        position_(position),
        master_(master),
        allocates_values_(allocates_values) {}

  struct Spec {
    std::string name;
    Shape shape;                    // global
    double standard_deviation = 0;  // 0: starts as ones (norm gains)
    ParameterGroup group = ParameterGroup::kDense;
    std::vector<Cut> cuts = {};     // over axes of the group's fold: dense or expert
    bool shared_by_stages = false;  // by several pipeline stages, which agree on its gradient
  };

  // Decay applies to matrices, not to norm gains. A parameter is replicated over the axes of its
  // fold that do not cut it, and its gradient arrives there in parts: ranks have other tokens,
  // heads or rows.
  Parameter* AddParameter(const Spec& spec);

  // `dimension` of `size` over the axis, as evenly as can be.
  Cut CutOver(Axis axis, int dimension, int64_t size) const {
    return {dimension, axis, EvenOwners(size, position_.size_of(axis))};
  }
  Buffer* AddBuffer(const std::string& name, DType dtype, const Shape& shape);  // zeros

  // Draws every element as a function of (seed, name, its global index), on the CPU.
  // REQUIRES: parameters have values.
  void Initialize(uint64_t seed);

  // The same for elements [begin, end) of a parameter's local tensor alone, which `part` holds,
  // [end - begin].
  void InitializePart(Parameter& parameter, int64_t begin, int64_t end, const Tensor& part,
                      uint64_t seed);

  size_t size() const { return parameters_.size(); }
  std::vector<Parameter*> parameters(size_t first = 0) const;  // from the first-th on
  std::vector<Buffer*> buffers() const;
  const MeshPosition& position() const { return position_; }
  DType master() const { return master_; }
  Context& context() const { return context_; }

 private:
  Context& context_;
  const MeshPosition position_;
  const DType master_;
  const bool allocates_values_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace moebius
