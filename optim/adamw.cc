#include "optim/adamw.h"

namespace moebius {

AdamW::AdamW(const AdamWSpec& spec, GradientBuckets& gradients, ValueBuckets& values,
             Context& context)
    : spec_(spec), gradients_(gradients), values_(values), context_(context) {
  for (size_t b = 0; b < gradients.buckets().size(); ++b) AddStates(b);
}

void AdamW::AddStates(size_t b) {
  const Bucket& bucket = gradients_.buckets()[b];
  const int64_t size = gradients_.own_size(b), begin = gradients_.own_begin(b);
  const Tensor m = context_.Zeros(bucket.dtype, {size}, "optimizer.m");
  const Tensor v = context_.Zeros(bucket.dtype, {size}, "optimizer.v");
  const bool alone = gradients_.stage() != ZeroStage::kReplicated || bucket.group->rank() == 0;
  for (const Bucket::Part& part : bucket.PartsWithin(begin, begin + size)) {
    const int64_t end = part.offset + part.end - part.begin;
    states_.push_back({.parameter = part.parameter,
                       .begin = part.begin,
                       .end = part.end,
                       .first_replica = alone && bucket.is_first_replica,
                       .value = values_.Own(b, part),
                       .m = m.Slice(part.offset, end),
                       .v = v.Slice(part.offset, end)});
    places_.push_back({b, part.offset});
  }
}

void AdamW::Step() {
  values_.BeginUpdate();
  std::vector<Handle> gathers;
  size_t i = 0;
  for (size_t b = 0; b < gradients_.buckets().size(); ++b) {
    const Tensor own = gradients_.Own(b);
    for (; i < states_.size() && places_[i].bucket == b; ++i) {
      const int64_t begin = places_[i].offset;
      Update(states_[i], own.Slice(begin, begin + states_[i].value.size()));
    }
    gathers.push_back(values_.Updated(b));  // on its way while the next bucket is updated
  }
  for (Handle& gather : gathers) gather.Wait();
}

void AdamW::Update(const State& state, const Tensor& gradient) {
  Parameter& parameter = *state.parameter;
  const std::vector<kernels::AdamWArgs::Image> images = ImagesToUpdate(state);
  // Images are of the whole weight, in its shape.
  const auto shaped = [&](const Tensor& flat) {
    return images.empty() ? flat : flat.Reshape(parameter.value.shape());
  };
  kernels::AdamW({.value = shaped(state.value),
                  .gradient = shaped(gradient),
                  .m = shaped(state.m),
                  .v = shaped(state.v),
                  .state = context_.step_state(),
                  .beta1 = spec_.beta1,
                  .beta2 = spec_.beta2,
                  .epsilon = spec_.epsilon,
                  .weight_decay = parameter.weight_decay ? spec_.weight_decay : 0,
                  .images = images},
                 context_);
  ++parameter.version;
  for (const auto& image : images) {
    parameter.images.at({image.format, image.tensor.dtype()}).version = parameter.version;
  }
}

std::vector<kernels::AdamWArgs::Image> AdamW::ImagesToUpdate(const State& state) const {
  std::vector<kernels::AdamWArgs::Image> images;
  const Parameter& parameter = *state.parameter;
  const bool is_whole = state.value.size() == parameter.value.size();
  if (!is_whole || values_.are_sharded()) return images;
  for (const auto& [key, image] : parameter.images) {
    if (key.first != WeightFormat::kPlain) images.push_back({key.first, image.tensor});
  }
  return images;
}

}  // namespace moebius
