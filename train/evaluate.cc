#include "train/evaluate.h"

#include <algorithm>
#include <numbers>

#include "core/tensor/copy.h"
#include "data/held_out_stream.h"
#include "parallel/pipeline/plan.h"
#include "train/batch_loader.h"
#include "train/stage_model.h"

namespace moebius {
namespace {

struct Sums {
  double loss = 0;
  double tokens = 0;
};

// Of one micro-batch, both the host's; padding weighs nothing.
void Add(const Tensor& losses, const MicroBatch& batch, Sums* sums) {
  for (int64_t t = 0; t < losses.size(); ++t) {
    if (batch.document_ids.data<int32_t>()[t] < 0) continue;
    sums->loss += losses.data<double>()[t];
    sums->tokens += 1;
  }
}

// The samples from `first` on that are this rank's in one micro-batch; none beyond `end`.
MicroBatch Load(const HeldOutStream& stream, int64_t first, int64_t end, DType dtype,
                const EvaluationOptions& options, const MeshPosition& at, Context& context) {
  std::vector<Sample> samples;
  std::vector<int64_t> index;
  const int64_t begin = first + at.index_on(Axis::kData) * options.micro_batch_size;
  for (int64_t i = begin; i < std::min(begin + options.micro_batch_size, end); ++i) {
    samples.push_back(stream.Get(i));
    index.push_back(i);
  }
  return MakeMicroBatch(samples, index,
                        {.sequence_length = options.sequence_length,
                         .attention_within_documents = options.attention_within_documents,
                         .dtype = dtype,
                         .at = at},
                        context);
}

DomainEvaluation EvaluateDomain(Transformer& model, WeightSource& weights, const Domain& domain,
                                const EvaluationOptions& options, Mesh& mesh, Context& context) {
  const HeldOutStream stream(domain.held_out.shard, options.sequence_length);
  int64_t samples = stream.num_samples();
  if (options.max_tokens_per_domain > 0) {
    const int64_t S = options.sequence_length;
    samples = std::min(samples, std::max<int64_t>(options.max_tokens_per_domain / S, 1));
  }
  // Each run of the pipeline has as many micro-batches as stages, which suits every schedule. All
  // ranks run as many; the last ones may leave some without a token.
  PipelineSpec pipeline = options.pipeline;
  pipeline.num_micro_batches = pipeline.num_stages;
  const PipelinePlan plan = *MakePlan(pipeline, Passes::kForwardOnly);
  const int64_t round = options.micro_batch_size * mesh.position().size_of(Axis::kData);
  Sums sums;
  for (int64_t first = 0; first < samples; first += round * pipeline.num_micro_batches) {
    std::vector<MicroBatch> here, batches;
    for (int m = 0; m < pipeline.num_micro_batches; ++m) {
      here.push_back(Load(stream, first + m * round, samples, model.policy().master, options,
                          mesh.position(), context));
      batches.push_back(ToDevice(here.back(), context));
    }
    StageModel stage(model, batches, {.pass = Pass::kEvaluate},
                     [&](Tape& tape, const Var& hidden, int m) {
                       const Tensor losses = model.TokenLosses(tape, hidden, batches[m]);
                       Add(ToHost(losses, context), here[m], &sums);
                     });
    PipelineExecutor({.model = stage,
                      .stages = mesh.group(Axis::kPipeline),
                      .context = context,
                      .weights = weights})
        .Run(plan);
  }
  double totals[2] = {sums.loss, sums.tokens};
  mesh.group_over({Axis::kPipeline, Axis::kData, Axis::kContext})
      .AllReduce(std::span(totals))
      .Wait();

  DomainEvaluation result{.domain = domain.name, .tokens = static_cast<int64_t>(totals[1])};
  const double share =
      totals[1] / static_cast<double>(std::max<int64_t>(stream.num_predicted(), 1));
  result.text_bytes =
      static_cast<int64_t>(share * static_cast<double>(domain.held_out.num_bytes) + 0.5);
  result.loss = totals[0] / std::max(totals[1], 1.0);
  result.bits_per_byte =
      totals[0] / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(result.text_bytes, 1));
  return result;
}

}  // namespace

std::vector<DomainEvaluation> Evaluate(Transformer& model, WeightSource& weights,
                                       const Dataset& dataset, const EvaluationOptions& options,
                                       Mesh& mesh, Context& context) {
  std::vector<DomainEvaluation> results;
  for (const Domain& domain : dataset.domains()) {
    results.push_back(EvaluateDomain(model, weights, domain, options, mesh, context));
  }
  model.BeginStep();  // what evaluation counted belongs to no step
  return results;
}

}  // namespace moebius
