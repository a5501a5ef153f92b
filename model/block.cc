#include "model/block.h"

#include "kernels/ops/elementwise.h"
#include "kernels/ops/rms_norm.h"

namespace moebius {
namespace {

const BlockState& StateOf(const Bundle& bundle) {
  return *std::any_cast<BlockState>(&bundle.state);
}

std::string Prefix(int64_t layer) { return "layers." + std::to_string(layer) + "."; }

}  // namespace

Block::Block(const ModelSpec& spec, int64_t layer, ParameterStore& store, Mesh& mesh,
             Context& context, const DtypePolicy& policy, const Options& options)
    : layer_(layer),
      norm_epsilon_(spec.norm_epsilon),
      attention_norm_(
          store.AddParameter({Prefix(layer) + "attention_norm.weight", {spec.hidden_size}})),
      attention_(spec, Prefix(layer) + "attention.", store, mesh),
      ffn_norm_(store.AddParameter({Prefix(layer) + "ffn_norm.weight", {spec.hidden_size}})),
      recompute_(options.recompute),
      all_segments_([this](Tape& tape, const Bundle& in) { return RunSegments(tape, in); }),
      shared_at_once_([this](Tape& tape, const Bundle& in) {
        return Bundle{
            {{"shared", moe_->shared_experts()->Forward(tape, in["normed"], *StateOf(in).batch)}},
            {}};
      }) {
  const auto bind = [this](Bundle (Block::*segment)(Tape&, const Bundle&)) {
    return [this, segment](Tape& tape, const Bundle& in) { return (this->*segment)(tape, in); };
  };
  if (!spec.is_moe_layer[layer]) {
    feed_forward_.emplace(spec, spec.ffn_hidden_size, Prefix(layer) + "ffn.", store, mesh);
    segments_ = {{"attention", bind(&Block::Attend)},
                 {"ffn", bind(&Block::FeedForwardDense), /*is_wide=*/true}};
    return;
  }
  moe_.emplace(spec, Prefix(layer) + "moe.", store, mesh, context,
               MoeLayer::Options{.router = policy.router, .dispatcher = options.dispatcher});
  halves_shared_ = moe_->shared_experts() != nullptr && recompute_ != Recompute::kSelective;
  segments_ = {{"attention_and_router", bind(&Block::AttendAndRoute)},
               {"dispatch", bind(&Block::Dispatch)},
               {"experts", bind(&Block::RunExperts), /*is_wide=*/true},
               {"combine", bind(&Block::CombineExperts)}};
}

Bundle Block::Forward(Tape& tape, Bundle bundle) const {
  if (recompute_ == Recompute::kFull && tape.keeps()) return tape.Recompute(bundle, &all_segments_);
  return RunSegments(tape, std::move(bundle));
}

Bundle Block::RunSegments(Tape& tape, Bundle bundle) const {
  for (const Segment& segment : segments_) {
    bundle = segment.is_wide ? RunWide(tape, bundle, segment.run) : segment.run(tape, bundle);
  }
  return bundle;
}

Bundle Block::RunWide(Tape& tape, const Bundle& in, const BundleFn& wide) const {
  const bool again = recompute_ == Recompute::kSelective && tape.keeps();
  return again ? tape.Recompute(in, &wide) : wide(tape, in);
}

Bundle Block::Attend(Tape& tape, const Bundle& in) {
  const Var& x = in["hidden"];
  const Var normed = ops::RmsNorm(tape, x, attention_norm_, norm_epsilon_);
  const Var attended = attention_.Forward(tape, normed, *StateOf(in).batch);
  return {{{"hidden", ops::Add(tape, x, attended)}}, in.state};
}

Bundle Block::FeedForwardDense(Tape& tape, const Bundle& in) {
  const Var& x = in["hidden"];
  const Var normed = ops::RmsNorm(tape, x, ffn_norm_, norm_epsilon_);
  const Var added = feed_forward_->Forward(tape, normed, *StateOf(in).batch);
  return {{{"hidden", ops::Add(tape, x, added)}}, in.state};
}

Bundle Block::AttendAndRoute(Tape& tape, const Bundle& in) {
  Bundle out = Attend(tape, in);
  const Var normed = ops::RmsNorm(tape, out["hidden"], ffn_norm_, norm_epsilon_);
  BlockState state = StateOf(in);
  auto [routing, weights] = moe_->Route(tape, normed, *state.batch, *state.step);
  state.routing = std::move(routing);
  out.Set("normed", normed);
  out.Set("weights", weights);
  out.state = std::move(state);
  return out;
}

Bundle Block::Dispatch(Tape& tape, const Bundle& in) {
  RowsUnderWay rows = moe_->Dispatch(tape, in["normed"], *StateOf(in).routing);
  Bundle out = in;
  if (halves_shared_) {
    const auto [gate, up, h] = moe_->shared_experts()->Up(tape, in["normed"], *StateOf(in).batch);
    out.Set("shared.gate", gate);
    out.Set("shared.up", up);
    out.Set("shared.h", h);
  }
  out.Set("rows", rows.Wait(tape));
  return out;
}

Bundle Block::RunExperts(Tape& tape, const Bundle& in) {
  Bundle out = in;
  out.Set("rows", moe_->RunExperts(tape, in["rows"], in["weights"], *StateOf(in).routing));
  return out;
}

// The second half, or all of it where its wide activations are computed again in backward.
Var Block::FinishShared(Tape& tape, const Bundle& in) const {
  if (halves_shared_) {
    return moe_->shared_experts()->Down(tape, {in["shared.gate"], in["shared.up"], in["shared.h"]},
                                        *StateOf(in).batch);
  }
  return RunWide(tape, {{{"normed", in["normed"]}}, in.state}, shared_at_once_)["shared"];
}

Bundle Block::CombineExperts(Tape& tape, const Bundle& in) {
  BlockState state = StateOf(in);
  RowsUnderWay rows = moe_->Combine(tape, in["rows"], in["weights"], *state.routing);
  std::optional<Var> shared;
  if (moe_->shared_experts() != nullptr) shared = FinishShared(tape, in);
  Var combined = rows.Wait(tape);
  if (shared) combined = ops::Add(tape, combined, *shared);
  state.routing.reset();
  return {{{"hidden", ops::Add(tape, in["hidden"], combined)}}, std::move(state)};
}

}  // namespace moebius
