// A mixture-of-experts layer: route, dispatch, experts, combine. Dropless; a token without an
// expert and an expert without a token are ordinary. Letters: T tokens of the shard (inputs.h).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/tape/tape.h"
#include "model/feed_forward.h"
#include "model/inputs.h"
#include "model/moe/balance.h"
#include "model/moe/dispatcher.h"
#include "model/moe/experts.h"
#include "model/moe/router.h"
#include "parallel/mesh.h"

namespace moebius {

class MoeLayer {
 public:
  struct Options {
    DType router = DType::kF32;
    DispatcherKind dispatcher = DispatcherKind::kAllToAll;
  };

  // `prefix`: "layers.3.moe."
  MoeLayer(const ModelSpec& spec, const std::string& prefix, ParameterStore& store, Mesh& mesh,
           Context& context, const Options& options);

  struct Routed {
    Routing routing;
    Var weights;  // of the pairs that Combine adds up
  };
  Routed Route(Tape& tape, const Var& x, const MicroBatch& batch, const StepInputs& step);

  // x [T, D] -> [R, D] grouped by this rank's experts
  Var Dispatch(Tape& tape, const Var& x, const Routing& routing) const;
  // [R, D] -> [R, D]
  Var RunExperts(Tape& tape, const Var& rows, const Routing& routing) const;
  // rows [R, D] back to their tokens, weighted  -> [T, D]
  Var Combine(Tape& tape, const Var& rows, const Var& weights, const Routing& routing) const;

  // What every token gets beside that.  x [T, D] -> [T, D]
  bool has_shared_experts() const { return shared_.has_value(); }
  Var RunSharedExperts(Tape& tape, const Var& x, const MicroBatch& batch) const {
    return shared_->Forward(tape, x, batch);
  }

  Balance& balance() { return balance_; }

 private:
  const std::unique_ptr<Dispatcher> dispatcher_;
  Router router_;
  Experts experts_;
  std::optional<FeedForward> shared_;
  Balance balance_;
};

}  // namespace moebius
