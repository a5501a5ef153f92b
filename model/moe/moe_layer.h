// A mixture-of-experts layer: route, dispatch, experts, combine. Dropless; a token without an
// expert and an expert without a token are ordinary. Rows travel in dispatch and combine: what does
// not need them, the shared experts, is computed before they are waited for. Letters: T tokens of
// the shard (inputs.h).
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
#include "parallel/ops/rows_under_way.h"

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

  // x [T, D] -> [B, D], what this rank's experts read (dispatcher.h)
  RowsUnderWay Dispatch(Tape& tape, const Var& x, const Routing& routing) const;
  // [B, D] -> [B, D]
  Var RunExperts(Tape& tape, const Var& rows, const Var& weights, const Routing& routing) const;
  // rows [B, D] back to their tokens, weighted  -> [T, D]
  RowsUnderWay Combine(Tape& tape, const Var& rows, const Var& weights,
                       const Routing& routing) const;

  // What every token gets beside that, on its own rank; null where there are none.
  const FeedForward* shared_experts() const { return shared_ ? &*shared_ : nullptr; }

  Balance& balance() { return balance_; }

 private:
  RoutingPlan Select(const Tensor& x, const Tensor& scores, const MicroBatch& batch,
                     const StepInputs& step, Context& context);

  const std::unique_ptr<Dispatcher> dispatcher_;
  Router router_;
  Experts experts_;
  std::optional<FeedForward> shared_;
  Balance balance_;
};

}  // namespace moebius
