#include "optim/adamw.h"

#include <algorithm>

namespace moebius {

AdamW::AdamW(const AdamWSpec& spec, GradientBuckets& gradients, ValueBuckets& values,
             Context& context, const Moments::Options& moments)
    : spec_(spec),
      gradients_(gradients),
      values_(values),
      context_(context),
      moments_(gradients, moments, context) {
  for (size_t b = 0; b < gradients.buckets().size(); ++b) AddStates(b);
}

void AdamW::AddStates(size_t b) {
  const Bucket& bucket = gradients_.buckets()[b];
  const int64_t size = gradients_.own_size(b), begin = gradients_.own_begin(b);
  const bool alone = gradients_.stage() != ZeroStage::kReplicated || bucket.group->rank() == 0;
  for (const Bucket::Part& part : bucket.PartsWithin(begin, begin + size)) {
    const int64_t end = part.offset + part.end - part.begin;
    states_.push_back({.parameter = part.parameter,
                       .begin = part.begin,
                       .end = part.end,
                       .first_replica = alone && bucket.is_first_replica,
                       .value = values_.Own(b, part),
                       .m = moments_.m(b).Slice(part.offset, end),
                       .v = moments_.v(b).Slice(part.offset, end)});
    places_.push_back({b, part.offset});
  }
}

void AdamW::Step() {
  values_.BeginUpdate();
  moments_.BeginUpdate();
  std::vector<Handle> gathers;
  for (size_t b = 0, begin = 0, end = 0; b < gradients_.buckets().size(); ++b, begin = end) {
    while (end < states_.size() && places_[end].bucket == b) ++end;
    const Tensor gradients = gradients_.Own(b);
    moments_.Update(b, [&](const Moments::Piece& piece) {
      for (size_t i = begin; i < end; ++i) Update(states_[i], places_[i], gradients, piece);
    });
    for (size_t i = begin; i < end; ++i) RaiseVersion(states_[i]);
    gathers.push_back(values_.Updated(b));  // on its way while the next bucket is updated
  }
  moments_.EndUpdate();
  for (Handle& gather : gathers) gather.Wait();
}

void AdamW::Update(const State& state, const Place& place, const Tensor& gradients,
                   const Moments::Piece& piece) {
  const Parameter& parameter = *state.parameter;
  // What is both of the state and of the piece, within what this rank owns of the bucket.
  const int64_t begin = std::max(place.offset, piece.begin);
  const int64_t end = std::min(place.offset + state.value.size(), piece.end);
  if (begin >= end) return;
  const std::vector<kernels::AdamWArgs::Image> images = ImagesToUpdate(state);
  const auto part_of = [&](const Tensor& flat, int64_t offset) {
    const Tensor part = flat.Slice(begin - offset, end - offset);
    // Images are of the whole weight, in its shape.
    return images.empty() ? part : part.Reshape(parameter.value.shape());
  };
  kernels::AdamW({.value = part_of(state.value, place.offset),
                  .gradient = part_of(gradients, 0),
                  .m = part_of(piece.m, piece.begin),
                  .v = part_of(piece.v, piece.begin),
                  .state = context_.step_state(),
                  .beta1 = spec_.beta1,
                  .beta2 = spec_.beta2,
                  .epsilon = spec_.epsilon,
                  .weight_decay = parameter.weight_decay ? spec_.weight_decay : 0,
                  .images = images},
                 context_);
}

void AdamW::RaiseVersion(const State& state) {
  Parameter& parameter = *state.parameter;
  const std::vector<kernels::AdamWArgs::Image> written = ImagesToUpdate(state);
  ++parameter.version;
  for (const auto& image : written) {
    parameter.images.at({image.format, image.tensor.dtype()}).version = parameter.version;
  }
}

std::vector<kernels::AdamWArgs::Image> AdamW::ImagesToUpdate(const State& state) const {
  std::vector<kernels::AdamWArgs::Image> images;
  const Parameter& parameter = *state.parameter;
  const bool is_whole = state.value.size() == parameter.value.size();
  if (!is_whole || values_.are_sharded() || moments_.come_in_pieces()) return images;
  for (const auto& [key, image] : parameter.images) {
    // A step that updates nothing makes no stale one current.
    if (image.version == parameter.version) images.push_back({key.first, image.tensor});
  }
  return images;
}

}  // namespace moebius
