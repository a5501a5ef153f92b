// What every schedule must compute, checked against one rank: run by the tests of the thread and of
// the MPI ranks.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/pipeline/executor.h"

namespace moebius {

// A chain of products, hidden = hidden w^T, cut into virtual stages of two products each; F64.
// Beside it travel what nothing changes ("skip", a product that has a loss of its own at the end)
// and what nothing reads ("unread"). Micro-batches have different sizes, and some no token.
class Chain final : public PipelineModel {
 public:
  // `held`: the virtual stages of this rank, by chunk. `scale`: tokens of a micro-batch, about a
  // quarter of them.
  Chain(Context& context, int num_virtual_stages, const std::vector<int>& held, int scale = 1);

  std::vector<ValueSpec> Boundary(int virtual_stage, int micro_batch) const override;
  Bundle Forward(Tape& tape, int chunk, int micro_batch, Bundle in) override;

  const std::map<int, std::unique_ptr<Parameter>>& weights() const {
    return weights_;
  }  // by product
  int num_forwards() const { return num_forwards_; }
  double loss() const { return loss_; }  // of the last virtual stage; 0 elsewhere

 private:
  int64_t NumTokens(int micro_batch) const;
  Tensor Random(const std::string& name, const Shape& shape) const;
  Bundle First(Tape& tape, int micro_batch);

  Context& context_;
  const int num_virtual_stages_;
  const std::vector<int> held_;
  const int scale_;
  std::map<int, std::unique_ptr<Parameter>> weights_;
  int num_forwards_ = 0;
  double loss_ = 0;
};

// The virtual stages of a stage, by chunk.
std::vector<int> HeldBy(const PipelineSpec& spec, int stage);

// Forward and backward of every micro-batch in turn, by a plain loop. REQUIRES: `chain` holds all.
void RunOnOneRank(Chain& chain, int num_virtual_stages, int num_micro_batches, Context& context,
                  WeightSource& weights);

// Two steps of the plan on the ranks of `stages`. Every rank expects the same bits as from one
// rank: each micro-batch computes the same, and sums over them keep their order.
void CheckGradients(const PipelineSpec& spec, Communicator& stages, int scale = 1);

}  // namespace moebius
