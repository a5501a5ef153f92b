#include "train/step_engine.h"

#include <utility>

#include "parallel/gathered_weights.h"

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
  return {.stage = static_cast<ZeroStage>(config.zero_stage()),
          .max_bytes = config.bucket_bytes(),
          .reduces_in_bf16 = config.gradient_reduce_dtype() == ParallelConfig::BF16};
}

Recompute RecomputeOf(const ParallelConfig& config) {
  return config.recompute() == ParallelConfig::FULL        ? Recompute::kFull
         : config.recompute() == ParallelConfig::SELECTIVE ? Recompute::kSelective
                                                           : Recompute::kNone;
}

DispatcherKind DispatcherOf(const ParallelConfig& config) {
  return config.dispatcher() == ParallelConfig::ALL_GATHER ? DispatcherKind::kAllGather
                                                           : DispatcherKind::kAllToAll;
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

Moments::Options MomentsOf(const OptimizerConfig& config) {
  const bool on_host = config.moments_tier() == OptimizerConfig::HOST;
  return {.tier = on_host ? MemoryTier::kHost : MemoryTier::kDevice};
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

absl::StatusOr<std::unique_ptr<StepEngine>> StepEngine::Create(const RunConfig& config,
                                                               int64_t tokenizer_vocab_size,
                                                               Communicator& world,
                                                               const Context::Options& resources,
                                                               PlanObserver* observer) {
  ASSIGN_OR_RETURN(const ModelSpec spec,
                   ModelSpec::FromProto(config.model(), tokenizer_vocab_size));
  RETURN_IF_ERROR(CheckPipeline(config, world.size()));
  if (spec.vocab_size < config.parallel().tensor_size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("parallel.tensor_size: %d ranks cannot each have a part of a vocabulary of "
                        "%d tokens, must be at most that",
                        config.parallel().tensor_size(), spec.vocab_size));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh,
                   Mesh::Create(SizesOf(config.parallel()), world, resources.accelerator));
  return absl::WrapUnique(new StepEngine(config, resources, std::move(mesh), spec, observer));
}

StepEngine::StepEngine(const RunConfig& config, const Context::Options& resources,
                       std::unique_ptr<Mesh> mesh, const ModelSpec& spec, PlanObserver* observer)
    : config_(config),
      context_(resources),
      mesh_(std::move(mesh)),
      pipeline_(PipelineOf(config, mesh_->world().size())),
      learning_rate_(LearningRateOf(config)) {
  const int stage = mesh_->position().index_on(Axis::kPipeline);
  const BucketOptions sharing = BucketsOf(config.parallel());
  const bool sharded = sharing.stage == ZeroStage::kParameters;
  model_ = std::make_unique<Transformer>(
      spec, DtypePolicy::For(ComputeDtypeOf(config)), *mesh_, context_,
      Transformer::Options{.chunks = ChunksOf(config, pipeline_, stage),
                           .recompute = RecomputeOf(config.parallel()),
                           .dispatcher = DispatcherOf(config.parallel()),
                           .allocates_parameters = !sharded});
  if (!sharded) model_->store().Initialize(config.run().seed());
  const std::vector<Parameter*> parameters = model_->store().parameters();
  buckets_ = std::make_unique<GradientBuckets>(parameters, *mesh_, context_, sharing);
  values_ = std::make_unique<ValueBuckets>(buckets_->buckets(), sharing.stage, context_);
  if (sharded) {
    weights_ = std::make_unique<GatheredWeights>(buckets_->buckets(), *values_, context_);
  } else {
    weights_ = std::make_unique<kernels::ResidentWeights>(context_);
  }
  optimizer_ = std::make_unique<AdamW>(AdamWOf(config.optimizer()), *buckets_, *values_, context_,
                                       MomentsOf(config.optimizer()));
  if (sharded) InitializeShares();
  step_ = std::make_unique<TrainStep>(
      TrainStep::Parts{.model = *model_,
                       .optimizer = *optimizer_,
                       .weights = *weights_,
                       .buckets = *buckets_,
                       .mesh = *mesh_,
                       .context = context_,
                       .pipeline = pipeline_,
                       .clip_norm = config.optimizer().clip_norm(),
                       .seed = config.run().seed(),
                       .exchange_capacity = config.parallel().exchange_capacity(),
                       .observer = observer,
                       .replays_steps = config.run().replays_steps()});
}

void StepEngine::InitializeShares() {
  for (const AdamW::State& state : optimizer_->states()) {
    model_->store().InitializePart(*state.parameter, state.begin, state.end, state.value,
                                   config_.run().seed());
  }
}

StepResult StepEngine::Step(int64_t step, const std::vector<MicroBatch>& micro_batches) {
  context_.BeginStep(step, LearningRate(learning_rate_, step));
  return step_->Run(micro_batches);
}

MicroBatchOptions StepEngine::micro_batch_options() const {
  return {.sequence_length = config_.train().sequence_length(),
          .attention_within_documents = config_.data().document_attention() == DataConfig::WITHIN,
          .dtype = model_->policy().master,
          .at = mesh_->position()};
}

}  // namespace moebius
