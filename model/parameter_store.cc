#include "model/parameter_store.h"

#include <algorithm>

#include "core/base/random.h"
#include "core/tensor/copy.h"

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

// part: elements [begin, end) of the local tensor.
template <class T>
void Draw(const Parameter& parameter, const MeshPosition& at, int64_t begin, int64_t end,
          const Tensor& part, uint64_t seed, ThreadPool& pool) {
  const Shape& global = parameter.placement.global_shape;
  const RandomStream stream(seed, parameter.name);
  const double deviation = parameter.initializer.standard_deviation;
  for (const Piece& piece : parameter.placement.FlatPieces(at, begin, end)) {
    T* const out = part.data<T>() + piece.local_begin;
    const int last = global.rank() - 1;
    const int64_t width = piece.end[last] - piece.begin[last];  // neighbours globally too
    int64_t rows = 1;
    for (int d = 0; d < last; ++d) rows *= piece.end[d] - piece.begin[d];
    pool.ForRange(rows, std::max<int64_t>(1, kGrain / width), [&](int64_t first, int64_t behind) {
      for (int64_t row = first; row < behind; ++row) {
        const int64_t index = GlobalIndex(piece, global, row * width);
        for (int64_t i = 0; i < width; ++i) {
          out[row * width + i] = static_cast<T>(deviation * stream.Normal(index + i));
        }
      }
    });
  }
}

template <class T>
void InitializeAs(const Parameter& parameter, const MeshPosition& at, int64_t begin, int64_t end,
                  const Tensor& part, uint64_t seed, ThreadPool& pool) {
  switch (parameter.initializer.kind) {
    case Initializer::Kind::kOnes:
      std::ranges::fill(part.span<T>(), T{1});
      return;
    case Initializer::Kind::kZeros:
      std::ranges::fill(part.span<T>(), T{0});
      return;
    case Initializer::Kind::kNormal:
      Draw<T>(parameter, at, begin, end, part, seed, pool);
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
  const Shape local = placement.LocalShape(position_);
  parameter->value =
      allocates_values_ ? context_.Empty(master_, local, "parameters") : NoValue(master_, local);
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
  CHECK(allocates_values_) << "no values to initialize";
  for (const auto& parameter : parameters_) {
    const int64_t size = parameter->value.size();
    InitializePart(*parameter, 0, size, parameter->value.Reshape({size}), seed);
  }
}

void ParameterStore::InitializePart(Parameter& parameter, int64_t begin, int64_t end,
                                    const Tensor& part, uint64_t seed) {
  ++parameter.version;
  if (context_.device().is_meta() || begin == end) return;
  const Tensor host = HostSide(part, context_);
  if (master_ == DType::kF64) {
    InitializeAs<double>(parameter, position_, begin, end, host, seed, context_.pool());
  } else {
    InitializeAs<float>(parameter, position_, begin, end, host, seed, context_.pool());
  }
  Copy(host, part);
  context_.Wait();  // so that the host needs room for one at a time
}

std::vector<Parameter*> ParameterStore::parameters(size_t first) const {
  std::vector<Parameter*> all;
  for (size_t i = first; i < parameters_.size(); ++i) all.push_back(parameters_[i].get());
  return all;
}

std::vector<Buffer*> ParameterStore::buffers() const {
  std::vector<Buffer*> all;
  for (const auto& buffer : buffers_) all.push_back(buffer.get());
  return all;
}

}  // namespace moebius
