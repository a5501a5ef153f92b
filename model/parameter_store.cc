#include "model/parameter_store.h"

#include <algorithm>

#include "core/base/random.h"

namespace moebius {
namespace {

constexpr int64_t kGrain = 4096;

// The global index of the element that stands at `local` within the piece, both row-major.
int64_t GlobalIndex(const Piece& piece, const Shape& global, int64_t local) {
  int64_t index = 0, stride = 1;
  for (int d = global.rank() - 1; d >= 0; --d) {
    const int64_t size = piece.end[d] - piece.begin[d];
    index += (piece.begin[d] + local % size) * stride;
    local /= size;
    stride *= global[d];
  }
  return index;
}

template <class T>
void Fill(const Parameter& parameter, const RandomStream& stream, const Piece& piece,
          ThreadPool& pool) {
  const Shape& global = parameter.placement.global_shape;
  const Shape& local = parameter.value.shape();
  CHECK_GE(local.rank(), 2) << parameter.name << ": only matrices are drawn";
  if (local.num_elements() == 0) return;
  const int64_t width = local[local.rank() - 1];  // elements of a row are neighbours globally too
  const int64_t rows_of_one = local.num_elements() / local[0] / width;
  const int64_t rows = (piece.end[0] - piece.begin[0]) * rows_of_one;
  T* const out = parameter.value.data<T>() + piece.local_begin * rows_of_one * width;
  const double deviation = parameter.initializer.standard_deviation;
  pool.ForRange(rows, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = GlobalIndex(piece, global, row * width);
      for (int64_t i = 0; i < width; ++i) {
        out[row * width + i] = static_cast<T>(deviation * stream.Normal(first + i));
      }
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
  constexpr Axis kDenseFold[] = {Axis::kData, Axis::kContext, Axis::kTensor};
  constexpr Axis kExpertFold[] = {Axis::kExpertData, Axis::kExpert, Axis::kExpertTensor};
  Placement placement{.global_shape = spec.shape, .cuts = spec.cuts, .replicated = {}};
  for (const Axis axis : spec.group == ParameterGroup::kExpert ? kExpertFold : kDenseFold) {
    if (std::ranges::find(spec.cuts, axis, &Cut::axis) == spec.cuts.end()) {
      placement.replicated.push_back({axis, GradientArrives::kPartial});
    }
  }
  if (spec.shared_by_stages) {
    placement.replicated.push_back({Axis::kPipeline, GradientArrives::kIdentical});
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
