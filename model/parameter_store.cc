#include "model/parameter_store.h"

#include "core/base/random.h"

namespace moebius {
namespace {

constexpr int64_t kGrain = 4096;

template <class T>
void Fill(const Parameter& parameter, const RandomStream& stream, const Piece& piece,
          ThreadPool& pool) {
  const Shape& global = parameter.placement.global_shape;
  const bool cut_inside = parameter.value.shape().num_elements() > 0 && global.rank() > 1 &&
                          (piece.begin[1] != 0 || piece.end[1] != global[1]);
  CHECK(!cut_inside) << parameter.name << ": only the leading dimension is cut";
  const int64_t row = global[0] == 0 ? 0 : global.num_elements() / global[0];
  const int64_t size = (piece.end[0] - piece.begin[0]) * row;
  T* const out = parameter.value.data<T>() + piece.local_begin * row;
  const double deviation = parameter.initializer.standard_deviation;
  pool.ForRange(size, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = static_cast<T>(deviation * stream.Normal(piece.begin[0] * row + i));
    }
  });
}

template <class T>
void InitializeAs(const Parameter& parameter, uint64_t seed, const MeshPosition& at,
                  ThreadPool& pool) {
  switch (parameter.initializer.kind) {
    case Initializer::Kind::kOnes:
      std::ranges::fill(parameter.value.span<T>(), T{1});
      return;
    case Initializer::Kind::kZeros:
      std::ranges::fill(parameter.value.span<T>(), T{0});
      return;
    case Initializer::Kind::kNormal: {
      const RandomStream stream(seed, parameter.name);
      for (const Piece& piece : parameter.placement.Pieces(at)) {
        Fill<T>(parameter, stream, piece, pool);
      }
    }
  }
}

}  // namespace

Parameter* ParameterStore::AddParameter(const Spec& spec) {
  Placement placement{.global_shape = spec.shape, .cuts = {}, .replicated = {}};
  if (spec.group == ParameterGroup::kExpert) {
    placement.cuts.push_back({0, Axis::kExpert, spec.expert_owner});
    placement.replicated.push_back({Axis::kExpertData, GradientArrives::kPartial});
  } else {
    placement.replicated.push_back({Axis::kData, GradientArrives::kPartial});
  }
  const bool is_gain = spec.standard_deviation == 0;
  auto parameter = std::make_unique<Parameter>();
  parameter->name = spec.name;
  parameter->group = spec.group;
  parameter->initializer = {is_gain ? Initializer::Kind::kOnes : Initializer::Kind::kNormal,
                            spec.standard_deviation};
  parameter->weight_decay = !is_gain;
  parameter->value = context_.Empty(master_, placement.LocalShape(position_), "parameters");
  parameter->placement = std::move(placement);
  parameters_.push_back(std::move(parameter));
  return parameters_.back().get();
}

Buffer* ParameterStore::AddBuffer(const std::string& name, DType dtype, const Shape& shape) {
  buffers_.push_back(
      std::make_unique<Buffer>(Buffer{name, context_.Zeros(dtype, shape, "buffers")}));
  return buffers_.back().get();
}

void ParameterStore::Initialize(uint64_t seed) {
  if (context_.device().is_meta()) return;
  for (const auto& parameter : parameters_) {
    if (master_ == DType::kF64) {
      InitializeAs<double>(*parameter, seed, position_, context_.pool());
    } else {
      InitializeAs<float>(*parameter, seed, position_, context_.pool());
    }
    ++parameter->version;
  }
}

std::vector<Parameter*> ParameterStore::parameters() const {
  std::vector<Parameter*> all;
  for (const auto& parameter : parameters_) all.push_back(parameter.get());
  return all;
}

std::vector<Buffer*> ParameterStore::buffers() const {
  std::vector<Buffer*> all;
  for (const auto& buffer : buffers_) all.push_back(buffer.get());
  return all;
}

}  // namespace moebius
