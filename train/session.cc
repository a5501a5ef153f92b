#include "train/session.h"

#include <algorithm>
#include <utility>

namespace moebius {
namespace {

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

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const RunConfig& config,
                                                         Communicator& world,
                                                         const Dataset& dataset,
                                                         const Context::Options& resources,
                                                         PlanObserver* observer) {
  ASSIGN_OR_RETURN(MixtureStream stream, MakeStream(config, dataset));
  ASSIGN_OR_RETURN(std::unique_ptr<StepEngine> engine,
                   StepEngine::Create(config, dataset.vocab_size(), world, resources, observer));
  return absl::WrapUnique(new Session(std::move(engine), dataset, std::move(stream)));
}

Session::Session(std::unique_ptr<StepEngine> engine, const Dataset& dataset, MixtureStream stream)
    : engine_(std::move(engine)), dataset_(dataset), stream_(std::move(stream)) {}

StepResult Session::Step() {
  const StepResult result = engine_->Step(steps_done_ + 1, LoadMicroBatches());
  ++steps_done_;
  return result;
}

// Micro-batches are dealt to the ranks of the data axis in turn: when each rank has run i of n, the
// same samples have been seen whatever the number of ranks.
std::vector<MicroBatch> Session::LoadMicroBatches() {
  const PhaseScope phase = context().StartPhase("load micro-batches");
  const TrainConfig& train = config().train();
  const int64_t size = train.micro_batch_size();
  const int64_t count = train.global_batch_size() / size;
  const MeshPosition& at = mesh().position();
  std::vector<MicroBatch> micro_batches;
  for (int64_t m = at.index_on(Axis::kData); m < count; m += at.size_of(Axis::kData)) {
    std::vector<Sample> samples;
    std::vector<int64_t> index;
    for (int64_t b = 0; b < size; ++b) {
      index.push_back(steps_done_ * train.global_batch_size() + m * size + b);
      samples.push_back(stream_.Get(index.back()));
    }
    micro_batches.push_back(
        MakeMicroBatch(samples, index, engine_->micro_batch_options(), context()));
  }
  return micro_batches;
}

std::vector<DomainEvaluation> Session::Evaluate() {
  const TrainConfig& train = config().train();
  return moebius::Evaluate(
      model(), weights(), dataset_,
      {.sequence_length = train.sequence_length(),
       .micro_batch_size = train.micro_batch_size(),
       .max_tokens_per_domain = train.eval_max_tokens_per_domain(),
       .attention_within_documents = engine_->micro_batch_options().attention_within_documents,
       .pipeline = engine_->pipeline()},
      mesh(), context());
}

}  // namespace moebius
