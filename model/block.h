// One transformer block, pre-norm: attention, then a feed-forward or a mixture of experts, each
// added to the residual stream. It is a list of named segments from Bundle to Bundle, so that a
// schedule may run them apart and let one micro-batch compute while another's rows travel. Shared
// experts are computed while the rows of their own micro-batch travel, in dispatch and combine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/tape/tape.h"
#include "model/attention.h"
#include "model/feed_forward.h"
#include "model/moe/moe_layer.h"

namespace moebius {

// What travels beside the values of a block's Bundle.
struct BlockState {
  const MicroBatch* batch = nullptr;
  const StepInputs* step = nullptr;
  std::optional<Routing> routing;
};

struct Segment {
  const char* name;
  BundleFn run;
  bool is_wide = false;  // its activations are wider than the hidden state
};

// What is computed a second time in backward instead of being kept.
enum class Recompute {
  kNone,
  kSelective,  // the wide segments
  kFull,       // the block
};

class Block {
 public:
  // How it runs; never changes a number.
  struct Options {
    Recompute recompute = Recompute::kNone;
    DispatcherKind dispatcher = DispatcherKind::kAllToAll;
  };

  Block(const ModelSpec& spec, int64_t layer, ParameterStore& store, Mesh& mesh, Context& context,
        const DtypePolicy& policy, const Options& options);
  Block(const Block&) = delete;

  // In order. Each maps {"hidden": [tokens of the shard, D], ...} with a BlockState to the same;
  // outer segments see "hidden" alone.
  const std::vector<Segment>& segments() const { return segments_; }
  Bundle Forward(Tape& tape, Bundle bundle) const;

  int64_t layer() const { return layer_; }
  MoeLayer* moe() { return moe_ ? &*moe_ : nullptr; }  // null in a dense block

 private:
  Bundle Attend(Tape& tape, const Bundle& in);
  Bundle FeedForwardDense(Tape& tape, const Bundle& in);
  Bundle RunSegments(Tape& tape, Bundle bundle) const;
  Bundle AttendAndRoute(Tape& tape, const Bundle& in);
  Bundle Dispatch(Tape& tape, const Bundle& in);
  Bundle RunExperts(Tape& tape, const Bundle& in);
  Bundle CombineExperts(Tape& tape, const Bundle& in);
  Var FinishShared(Tape& tape, const Bundle& in) const;
  Bundle RunWide(Tape& tape, const Bundle& in, const BundleFn& wide) const;

  const int64_t layer_;
  const double norm_epsilon_;
  Parameter* attention_norm_;  // [D]
  Attention attention_;
  Parameter* ffn_norm_;  // [D]
  std::optional<FeedForward> feed_forward_;
  std::optional<MoeLayer> moe_;
  const Recompute recompute_;
  std::vector<Segment> segments_;
  const BundleFn all_segments_;
  const BundleFn shared_at_once_;
  bool halves_shared_ = false;  // one half during dispatch, the other during combine
};

}  // namespace moebius
