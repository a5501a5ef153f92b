#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/rules.h"

namespace moebius {
namespace {

// `size` ranks cut `number` of `what`, evenly.
void CheckCut(const std::string& path, int64_t size, const std::string& what, int64_t number,
              Errors* errors) {
  Require(number % size == 0, path,
          absl::StrCat(size, " does not divide ", what, " ", number, ", use ",
                       NearestDivisors(size, number, {number})),
          errors);
}

void CheckTensorSize(const RunConfig& config, Errors* errors) {
  constexpr char kPath[] = "parallel.tensor_size";
  const ModelConfig& model = config.model();
  const int64_t size = config.parallel().tensor_size(), kv_heads = model.num_kv_heads();
  if (size == 1) return;
  CheckCut(kPath, size, "model.num_heads", model.num_heads(), errors);
  Require(kv_heads % size == 0 || size % kv_heads == 0, kPath,
          absl::StrCat(size, " neither divides model.num_kv_heads ", kv_heads,
                       " nor is a multiple of it"),
          errors);
  if (HasDenseLayer(model)) {
    CheckCut(kPath, size, "model.ffn_hidden_size", model.ffn_hidden_size(), errors);
  }
  const MoeConfig& moe = model.moe();
  if (moe.num_experts() > 0 && moe.num_shared_experts() > 0) {
    CheckCut(kPath, size, "model.moe.num_shared_experts x model.moe.expert_hidden_size",
             moe.num_shared_experts() * moe.expert_hidden_size(), errors);
  }
}

void CheckSequenceCut(const RunConfig& config, Errors* errors) {
  const int64_t length = config.train().sequence_length();
  const int64_t context = config.parallel().context_size();
  const int64_t tensor = config.parallel().tensor_size();
  const int64_t pieces = (context > 1 ? 2 * context : 1) * tensor;
  Require(length % pieces == 0, "train.sequence_length",
          absl::StrCat(length, " cannot be cut into ", pieces, " equal pieces (",
                       context > 1 ? "2 x parallel.context_size x " : "",
                       "parallel.tensor_size), use ", NearestMultiples(length, pieces)),
          errors);
}

void CheckPipelineLayers(const RunConfig& config, Errors* errors) {
  const ParallelConfig& parallel = config.parallel();
  const int64_t layers = config.model().num_layers();
  const int64_t chunks = int64_t{parallel.pipeline_size()} * parallel.virtual_pipeline_size();
  Require(chunks <= layers, "parallel.pipeline_size",
          absl::StrCat(parallel.pipeline_size(), " x parallel.virtual_pipeline_size ",
                       parallel.virtual_pipeline_size(), " are more than model.num_layers ", layers,
                       ": a stage would be empty, use at most ", layers, " chunks"),
          errors);
  const auto& given = parallel.pipeline_layers();
  if (given.empty()) return;
  Require(given.size() == chunks, "parallel.pipeline_layers",
          absl::StrCat("has ", given.size(), " numbers, must have one for each of the ", chunks,
                       " chunks (parallel.pipeline_size x parallel.virtual_pipeline_size)"),
          errors);
  const int64_t sum = std::accumulate(given.begin(), given.end(), int64_t{0});
  const bool each_has_one = std::all_of(given.begin(), given.end(), [](int n) { return n >= 1; });
  Require(each_has_one && sum == layers, "parallel.pipeline_layers",
          absl::StrCat("is ", absl::StrJoin(given, ", "),
                       ", must be at least 1 each and add up to ", "model.num_layers ", layers),
          errors);
}

}  // namespace

void CheckParallel(const RunConfig& config, Errors* errors) {
  const ParallelConfig& parallel = config.parallel();
  CheckPipelineLayers(config, errors);
  CheckTensorSize(config, errors);
  CheckSequenceCut(config, errors);
  Require(parallel.gradient_reduce_dtype() == ParallelConfig::FP32 ||
              config.precision().compute() != PrecisionConfig::FP64,
          "parallel.gradient_reduce_dtype",
          "BF16 would round the gradients of precision.compute FP64, must be FP32 (they travel as "
          "they are)",
          errors);
  Require(parallel.exchange_capacity() == 0 || parallel.dispatcher() == ParallelConfig::ALL_TO_ALL,
          "parallel.exchange_capacity",
          absl::StrCat(parallel.exchange_capacity(),
                       " is of parallel.dispatcher ALL_TO_ALL, must be 0 under ALL_GATHER"),
          errors);
  const MoeConfig& moe = config.model().moe();
  const auto needs_experts = [&](const char* path, int size) {
    Require(size == 1 || moe.num_experts() > 0, path,
            absl::StrCat(size, " needs experts, but model.moe.num_experts is 0, must be 1"),
            errors);
  };
  needs_experts("parallel.expert_size", parallel.expert_size());
  needs_experts("parallel.expert_tensor_size", parallel.expert_tensor_size());
  CheckCut("parallel.expert_size", parallel.expert_size(), "model.moe.num_experts",
           moe.num_experts(), errors);
  CheckCut("parallel.expert_tensor_size", parallel.expert_tensor_size(),
           "model.moe.expert_hidden_size", moe.expert_hidden_size(), errors);
}

absl::Status ValidateLayout(const RunConfig& config, int world_size) {
  const ParallelConfig& parallel = config.parallel();
  const int64_t model_size =
      int64_t{parallel.tensor_size()} * parallel.pipeline_size() * parallel.context_size();
  if (world_size % model_size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("parallel: ", world_size,
                     " ranks are no multiple of tensor_size x pipeline_size x "
                     "context_size = ",
                     model_size, ", start ", NearestMultiples(world_size, model_size)));
  }
  Errors errors;
  const int64_t data_size = world_size / model_size;
  const int64_t stage_size = world_size / parallel.pipeline_size();
  const int64_t experts = config.model().moe().num_experts();
  const int64_t expert_size = parallel.expert_size();
  const int64_t expert_tensor_size = parallel.expert_tensor_size();
  const int64_t unit_of_stage =
      std::lcm(parallel.tensor_size() * parallel.context_size(), expert_size * expert_tensor_size);
  const bool experts_fit = stage_size % (expert_size * expert_tensor_size) == 0;
  const int64_t limit = stage_size / expert_tensor_size;
  const std::string use =
      stage_size % expert_tensor_size == 0
          ? absl::StrCat("use ", NearestDivisors(expert_size, limit, {limit, experts}), " or ")
          : "";
  Require(
      experts_fit, "parallel.expert_size",
      absl::StrCat(
          expert_size,
          expert_tensor_size > 1 ? absl::StrCat(" x expert_tensor_size ", expert_tensor_size) : "",
          " does not divide the ", stage_size, " ranks of a pipeline stage, ", use, "start ",
          NearestMultiples(world_size, unit_of_stage * parallel.pipeline_size()), " ranks"),
      &errors);
  const int64_t batch = config.train().global_batch_size();
  const int64_t unit = config.train().micro_batch_size() * data_size;
  Require(batch % unit == 0, "train.global_batch_size",
          absl::StrCat(batch, " is no multiple of train.micro_batch_size ",
                       config.train().micro_batch_size(), " x data-parallel size ", data_size,
                       " = ", unit, ", use ", NearestMultiples(batch, unit)),
          &errors);
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrJoin(errors, "\n", [](std::string* out, const ConfigError& error) {
        absl::StrAppend(out, error.path, ": ", error.message);
      }));
}

}  // namespace moebius
