#include "core/tape/tape.h"

#include <algorithm>

namespace moebius {

const Var& Bundle::operator[](const char* name) const {
  const auto it = std::ranges::find_if(
      values, [&](const auto& value) { return std::strcmp(value.first, name) == 0; });
  CHECK(it != values.end()) << "no value named " << name;
  return it->second;
}

void Bundle::Set(const char* name, Var value) {
  for (auto& [existing, var] : values) {
    if (std::strcmp(existing, name) == 0) {
      var = std::move(value);
      return;
    }
  }
  values.emplace_back(name, std::move(value));
}

Tape::Tape(Context& context, WeightSource& weights, Mode mode, GradientSink* gradients)
    : context_(context), weights_(weights), mode_(mode), gradients_(gradients) {}

Tape::~Tape() = default;

Var Tape::Input(Tensor value) {
  vars_.push_back({value.dtype(), value.shape(), true, Tensor(), false, std::nullopt});
  return Var(std::move(value), {static_cast<int>(vars_.size()) - 1});
}

Saved Tape::Save(const Tensor& tensor, const char* name) {
  if (!keeps()) return {};
  StorageUse& use = saved_storages_[tensor.storage().get()];
  if (use.count++ == 0) {
    use.name = name;
    use.bytes = tensor.storage()->bytes();
    saved_bytes_[name] += use.bytes;
  }
  return Keep({name, 0, tensor, std::any(), 1});
}

const Tensor& Tape::Load(Saved saved) const {
  const Kept& kept = kept_[saved.index];
  CHECK(kept.tensor.defined()) << kept.name << " was freed";
  return kept.tensor;
}

Saved Tape::Keep(Kept kept) {
  saved_bytes_[kept.name] += kept.bytes;
  kept_.push_back(std::move(kept));
  open_saves_.push_back({static_cast<int>(kept_.size()) - 1});
  return open_saves_.back();
}

void Tape::Release(Saved saved) {
  Kept& kept = kept_[saved.index];
  if (--kept.uses > 0) return;
  saved_bytes_[kept.name] -= kept.bytes;
  kept.object.reset();
  if (!kept.tensor.defined()) return;
  const auto use = saved_storages_.find(kept.tensor.storage().get());
  if (--use->second.count == 0) {
    saved_bytes_[use->second.name] -= use->second.bytes;
    saved_storages_.erase(use);
  }
  kept.tensor = Tensor();
}

GradientSlot Tape::Gradient(VarId x) {
  VarInfo& var = vars_[x.index];
  if (var.outer.has_value()) return outer_->Gradient(*var.outer);
  if (!var.gradient.defined()) var.gradient = context_.Empty(var.dtype, var.shape, "gradient");
  return {var.gradient, std::exchange(var.written, true)};
}

GradientSlot Tape::ParameterGradient(Parameter* parameter) {
  if (gradients_ != nullptr) return gradients_->Open(*parameter);
  CHECK(parameter->gradient.defined()) << parameter->name << " has no gradient";
  return {parameter->gradient, std::exchange(parameter->gradient_written, true)};
}

void Tape::Backward(std::span<const Seed> seeds, WeightGradients when, int mark) {
  for (const Seed& seed : seeds) {
    VarInfo& var = vars_[seed.var.index];
    CHECK(!var.written) << "a seed comes before other gradients";
    CHECK(seed.gradient.shape() == var.shape) << seed.gradient.shape() << " for " << var.shape;
    var.gradient = seed.gradient;
    var.written = true;
  }
  while (Mark() > mark) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    RunNode(std::move(node), when);
    if (when == WeightGradients::kNow) RunDeferred();
  }
}

void Tape::RunNode(Node node, WeightGradients when) {
  open_saves_ = std::move(node.saves);  // what the closure saves for later joins them
  if (node.replay >= 0) {
    RunReplay(replays_recorded_[node.replay], when);
  } else if (node.output.index < 0) {
    node.backward(*this, Tensor());
  } else {
    const VarInfo& var = vars_[node.output.index];
    if (var.written) {
      const Tensor dy = var.gradient;
      node.backward(*this, dy);
    }
    vars_[node.output.index].gradient = Tensor();
  }
  for (const Saved saved : std::exchange(open_saves_, {})) Release(saved);
}

void Tape::RunDeferred() {
  for (const Deferred& deferred : std::exchange(deferred_, {})) {
    deferred.compute(*this);
    if (gradients_ != nullptr) gradients_->Written();
    for (const Saved saved : deferred.uses) Release(saved);
  }
  for (const auto& replay : std::exchange(replays_deferred_, {})) replay->RunDeferred();
}

std::map<std::string, int64_t> Tape::saved_bytes() const {
  auto bytes = saved_bytes_;
  for (const auto& replay : replays_deferred_) {
    for (const auto& [name, more] : replay->saved_bytes()) bytes[name] += more;
  }
  return bytes;
}

Bundle Tape::Recompute(const Bundle& inputs, const BundleFn* fn) {
  const std::shared_ptr<Log> log = log_ != nullptr ? log_ : std::make_shared<Log>();
  const size_t first = replays_ ? next_in_log_ : log->size();

  Tape forward(context_, weights_, Mode::kForwardOnly);
  forward.replays_ = replays_;
  forward.log_ = log;
  forward.next_in_log_ = next_in_log_;
  Bundle forward_inputs{{}, inputs.state};
  for (const auto& [name, var] : inputs.values) {
    forward_inputs.values.emplace_back(name, forward.Input(var.value()));
  }
  const Bundle result = (*fn)(forward, forward_inputs);
  next_in_log_ = forward.next_in_log_;

  Replay replay{.fn = fn,
                .names = {},
                .inputs = {},
                .values = {},
                .state = inputs.state,
                .outputs = {},
                .log = log,
                .first_in_log = first};
  for (const auto& [name, var] : inputs.values) {
    replay.names.push_back(name);
    replay.inputs.push_back(var.id());
    replay.values.push_back(Save(var.value(), "recompute"));
  }
  Bundle outputs{{}, result.state};
  std::map<int, Var> outer;  // by index on the forward tape: a value may have several names
  for (size_t i = 0; i < inputs.values.size(); ++i) {  // and may be passed through
    outer.emplace(static_cast<int>(i), inputs.values[i].second);
  }
  for (const auto& [name, var] : result.values) {
    const auto known = outer.find(var.id().index);
    if (known != outer.end()) {
      outputs.values.emplace_back(name, known->second);
      continue;
    }
    outputs.values.emplace_back(name, Input(var.value()));
    vars_.back().is_leaf = false;
    outer.emplace(var.id().index, outputs.values.back().second);
    replay.outputs.emplace_back(name, outputs.values.back().second.id());
  }
  if (keeps()) {
    replays_recorded_.push_back(std::move(replay));
    nodes_.push_back(
        {{}, {}, std::exchange(open_saves_, {}), static_cast<int>(replays_recorded_.size()) - 1});
  }
  return outputs;
}

void Tape::RunReplay(const Replay& replay, WeightGradients when) {
  auto again = std::make_unique<Tape>(context_, weights_, Mode::kTrain, gradients_);
  again->replays_ = true;
  again->outer_ = this;
  again->log_ = replay.log;
  again->next_in_log_ = replay.first_in_log;
  Bundle inputs{{}, replay.state};
  for (size_t i = 0; i < replay.inputs.size(); ++i) {
    inputs.values.emplace_back(replay.names[i], again->Input(Load(replay.values[i])));
    again->vars_.back().outer = replay.inputs[i];
  }
  const Bundle outputs = (*replay.fn)(*again, inputs);
  std::vector<Seed> seeds;
  for (const auto& [name, id] : replay.outputs) {
    VarInfo& var = vars_[id.index];
    if (var.written) seeds.push_back({outputs[name].id(), std::exchange(var.gradient, {})});
  }
  again->Backward(seeds, when);
  again->outer_ = nullptr;
  if (when == WeightGradients::kDeferred) replays_deferred_.push_back(std::move(again));
}

}  // namespace moebius
