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
  ParameterStore(Context& context, const MeshPosition& position, DType master)
      : context_(context), position_(position), master_(master) {}

  struct Spec {
    std::string name;
    Shape shape;                    // global
    double standard_deviation = 0;  // 0: starts as ones (norm gains)
    ParameterGroup group = ParameterGroup::kDense;
    std::vector<int> expert_owner = {};  // cuts dimension 0 over the expert axis
  };

  // Decay applies to matrices, not to norm gains. Dense parameters are replicated over data (their
  // gradients arrive in parts), experts over expert_data.
  Parameter* AddParameter(const Spec& spec);
  Buffer* AddBuffer(const std::string& name, DType dtype, const Shape& shape);  // zeros

  // Draws every element as a function of (seed, name, its global index), on the CPU.
  void Initialize(uint64_t seed);

  std::vector<Parameter*> parameters() const;
  std::vector<Buffer*> buffers() const;
  const MeshPosition& position() const { return position_; }
  DType master() const { return master_; }

 private:
  Context& context_;
  const MeshPosition position_;
  const DType master_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace moebius
