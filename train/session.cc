#include "train/session.h"

#include <algorithm>
#include <utility>

#include "train/batch_loader.h"

namespace moebius {
namespace {

ParallelSizes SizesOf(const ParallelConfig& config) {
  return {.tensor = config.tensor_size(),
          .pipeline = config.pipeline_size(),
          .context = config.context_size(),
          .expert = config.expert_size(),
          .expert_tensor = config.expert_tensor_size()};
}

BucketOptions BucketsOf(const ParallelConfig& config) {
  return {.stage = static_cast<ZeroStage>(config.zero_stage()), .max_bytes = config.bucket_bytes()};
}

Recompute RecomputeOf(const ParallelConfig& config) {
  return config.recompute() == ParallelConfig::FULL        ? Recompute::kFull
         : config.recompute() == ParallelConfig::SELECTIVE ? Recompute::kSelective
                                                           : Recompute::kNone;
}

LearningRateSpec LearningRateOf(const RunConfig& config) {
  const OptimizerConfig& optimizer = config.optimizer();
  using Shape = LearningRateSpec::Shape;
  const Shape shape = optimizer.schedule() == OptimizerConfig::WSD ? Shape::kWarmupStableDecay
                      : optimizer.schedule() == OptimizerConfig::CONSTANT ? Shape::kConstant
                                                                          : Shape::kCosine;
  return {.shape = shape,
          .peak = optimizer.peak_lr(),
          .min_ratio = optimizer.min_lr_ratio(),
          .warmup_steps = optimizer.warmup_steps(),
          .decay_steps = optimizer.decay_steps(),
          .num_steps = config.train().num_steps()};
}

AdamWSpec AdamWOf(const OptimizerConfig& config) {
  return {.beta1 = config.beta1(),
          .beta2 = config.beta2(),
          .epsilon = config.epsilon(),
          .weight_decay = config.weight_decay()};
}

// The config's domains, in its order, out of the prepared data.
absl::StatusOr<MixtureStream> MakeStream(const RunConfig& config, const Dataset& dataset) {
  std::vector<MixtureStream::Domain> mixture;
  for (const DomainConfig& domain : config.data().domains()) {
    const auto prepared = std::ranges::find(dataset.domains(), domain.name(), &Domain::name);
    if (prepared == dataset.domains().end()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: data.domains: the prepared data has no domain \"%s\"",
                          dataset.folder(), domain.name()));
    }
    mixture.push_back({domain.name(), &prepared->train.shard, domain.weight()});
  }
  return MixtureStream::Create(std::move(mixture), config.train().sequence_length(),
                               config.data().seed());
}

bool AttendsWithin(const RunConfig& config) {
  return config.data().document_attention() == DataConfig::WITHIN;
}

}  // namespace

DType ComputeDtypeOf(const RunConfig& config) {
  switch (config.precision().compute()) {
    case PrecisionConfig::FP64:
      return DType::kF64;
    case PrecisionConfig::FP32:
      return DType::kF32;
    case PrecisionConfig::BF16:
      return DType::kBF16;
  }
  CHECK(false) << "no such precision";
}

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const RunConfig& config,
                                                         Communicator& world,
                                                         const Dataset& dataset,
                                                         const Context::Options& resources) {
  ASSIGN_OR_RETURN(const ModelSpec spec,
                   ModelSpec::FromProto(config.model(), dataset.vocab_size()));
  RETURN_IF_ERROR(CheckPipeline(config, world.size()));
  if (spec.vocab_size < config.parallel().tensor_size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("parallel.tensor_size: %d ranks cannot each have a part of a vocabulary of "
                        "%d tokens, must be at most that",
                        config.parallel().tensor_size(), spec.vocab_size));
  }
  ASSIGN_OR_RETURN(MixtureStream stream, MakeStream(config, dataset));
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::Create(SizesOf(config.parallel()), world));
  return absl::WrapUnique(
      new Session(config, dataset, resources, std::move(mesh), spec, std::move(stream)));
}

Session::Session(const RunConfig& config, const Dataset& dataset, const Context::Options& resources,
                 std::unique_ptr<Mesh> mesh, const ModelSpec& spec, MixtureStream stream)
    : config_(config),
      dataset_(dataset),
      context_(resources),
      mesh_(std::move(mesh)),
      pipeline_(PipelineOf(config, mesh_->world().size())),
      stream_(std::move(stream)),
      learning_rate_(LearningRateOf(config)) {
  const int stage = mesh_->position().index_on(Axis::kPipeline);
  model_ = std::make_unique<Transformer>(
      spec, DtypePolicy::For(ComputeDtypeOf(config)), *mesh_, context_,
      Transformer::Options{.chunks = ChunksOf(config, pipeline_, stage),
                           .recompute = RecomputeOf(config.parallel())});
  model_->store().Initialize(config.run().seed());
  const std::vector<Parameter*> parameters = model_->store().parameters();
  const BucketOptions sharing = BucketsOf(config.parallel());
  buckets_ = std::make_unique<GradientBuckets>(parameters, *mesh_, context_, sharing);
  values_ = std::make_unique<ValueBuckets>(buckets_->buckets(), sharing.stage, context_);
  if (values_->are_sharded()) {
    weights_ = std::make_unique<GatheredWeights>(buckets_->buckets(), *values_, context_);
  } else {
    weights_ = std::make_unique<kernels::ResidentWeights>(context_);
  }
  optimizer_ = std::make_unique<AdamW>(AdamWOf(config.optimizer()), *buckets_, *values_, context_);
  step_ = std::make_unique<TrainStep>(TrainStep::Parts{.model = *model_,
                                                       .optimizer = *optimizer_,
                                                       .weights = *weights_,
                                                       .buckets = *buckets_,
                                                       .mesh = *mesh_,
                                                       .context = context_,
                                                       .pipeline = pipeline_,
                                                       .clip_norm = config.optimizer().clip_norm(),
                                                       .seed = config.run().seed()});
}

StepResult Session::Step() {
  const int64_t step = steps_done_ + 1;
  context_.step() = {.step = step, .learning_rate = LearningRate(learning_rate_, step)};
  const StepResult result = step_->Run(LoadMicroBatches());
  steps_done_ = step;
  return result;
}

// Micro-batches are dealt to the ranks of the data axis in turn: when each rank has run i of n, the
// same samples have been seen whatever the number of ranks.
std::vector<MicroBatch> Session::LoadMicroBatches() {
  const TrainConfig& train = config_.train();
  const int64_t size = train.micro_batch_size();
  const int64_t count = train.global_batch_size() / size;
  const MeshPosition& at = mesh_->position();
  std::vector<MicroBatch> micro_batches;
  for (int64_t m = at.index_on(Axis::kData); m < count; m += at.size_of(Axis::kData)) {
    std::vector<Sample> samples;
    std::vector<int64_t> index;
    for (int64_t b = 0; b < size; ++b) {
      index.push_back(steps_done_ * train.global_batch_size() + m * size + b);
      samples.push_back(stream_.Get(index.back()));
    }
    micro_batches.push_back(MakeMicroBatch(samples, index,
                                           {.sequence_length = train.sequence_length(),
                                            .attention_within_documents = AttendsWithin(config_),
                                            .dtype = model_->policy().master,
                                            .at = at},
                                           context_));
  }
  return micro_batches;
}

std::vector<DomainEvaluation> Session::Evaluate() {
  const TrainConfig& train = config_.train();
  return moebius::Evaluate(*model_, *weights_, dataset_,
                           {.sequence_length = train.sequence_length(),
                            .micro_batch_size = train.micro_batch_size(),
                            .max_tokens_per_domain = train.eval_max_tokens_per_domain(),
                            .attention_within_documents = AttendsWithin(config_),
                            .pipeline = pipeline_},
                           *mesh_, context_);
}

}  // namespace moebius
