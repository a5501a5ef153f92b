#include "configs/validate.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cctype>
#include <limits>
#include <numeric>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "configs/fields.h"
#include "configs/ranges.h"

namespace moebius {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

namespace {

using Errors = std::vector<ConfigError>;

// ---- Presence and ranges -----------------------------------------------------------------------

// The value of a singular number; nothing for other types and for seeds.
std::optional<double> NumberIn(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->GetInt32(message, field);
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(reflection->GetInt64(message, field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->GetDouble(message, field);
    default:
      return std::nullopt;
  }
}

void CheckField(const Message& message, const FieldDescriptor* field, const std::string& path,
                Errors* errors) {
  if (!message.GetReflection()->HasField(message, field)) {
    errors->push_back({path, "is required"});
    return;
  }
  const std::optional<double> value = NumberIn(message, field);
  const Range* range = FindRange(path);
  if (!value || !range) return;
  if (range->Contains(*value)) return;
  errors->push_back(
      {path, absl::StrCat(FormatNumber(*value), " is out of range, must be ", range->Describe())});
}

// What is missing or out of range in `message` and below.
void CheckFields(const Message& message, const std::string& base, Errors* errors) {
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    const std::string path = JoinPath(base, field->name());
    if (!field->is_repeated()) {
      if (field->message_type()) {
        CheckFields(reflection->GetMessage(message, field), path, errors);
      } else {
        CheckField(message, field, path, errors);
      }
    } else if (field->message_type()) {
      for (int j = 0; j < reflection->FieldSize(message, field); ++j) {
        CheckFields(reflection->GetRepeatedMessage(message, field, j),
                    absl::StrCat(path, "[", j, "]"), errors);
      }
    }
  }
}

// ---- Consistency -------------------------------------------------------------------------------

void Require(bool holds, const std::string& path, const std::string& message, Errors* errors) {
  if (!holds) errors->push_back({path, message});
}

bool HasControlCharacter(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; });
}

void CheckPath(const std::string& value, const std::string& path, Errors* errors) {
  Require(!value.empty(), path, "is empty, must be a path", errors);
  Require(!HasControlCharacter(value), path, "holds a control character, must be a path", errors);
}

// The multiples of `unit` around `value`, as "4 or 8"; without 0.
std::string NearestMultiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below == 0 ? absl::StrCat(unit) : absl::StrCat(below, " or ", below + unit);
}

// The values around `value`, from 1 to `limit`, that divide all of `numbers`, as "2 or 4".
std::string NearestDivisors(int64_t value, int64_t limit, const std::vector<int64_t>& numbers) {
  const auto divides = [&](int64_t divisor) {
    return std::all_of(numbers.begin(), numbers.end(),
                       [&](int64_t number) { return number % divisor == 0; });
  };
  std::vector<int64_t> found;
  for (int64_t below = std::min(value, limit); below >= 1; --below) {
    if (divides(below)) {
      found.push_back(below);
      break;
    }
  }
  for (int64_t above = value + 1; above <= limit; ++above) {
    if (divides(above)) {
      found.push_back(above);
      break;
    }
  }
  return absl::StrJoin(found, " or ");
}

void CheckTrain(const RunConfig& config, Errors* errors) {
  const TrainConfig& train = config.train();
  const int64_t batch = train.global_batch_size(), micro = train.micro_batch_size();
  Require(batch % micro == 0, "train.global_batch_size",
          absl::StrCat(batch, " is no multiple of train.micro_batch_size ", micro, ", use ",
                       NearestMultiples(batch, micro)),
          errors);
  const MoeConfig& moe = config.model().moe();
  const int64_t rows = micro * train.sequence_length() * (moe.num_experts() > 0 ? moe.top_k() : 1);
  Require(rows <= std::numeric_limits<int32_t>::max(), "train.micro_batch_size",
          absl::StrCat(micro, " x sequence_length x top_k is ", rows,
                       " rows in a micro-batch, must be at most 2147483647"),
          errors);
}

// Parameters of the layers, roughly; in double, which cannot overflow.
double CountParameters(const ModelConfig& model) {
  const double hidden = static_cast<double>(model.hidden_size());
  const double heads = 2.0 * static_cast<double>(model.num_heads() + model.num_kv_heads());
  const MoeConfig& moe = model.moe();
  const double expert_width = static_cast<double>(moe.num_experts() + moe.num_shared_experts()) *
                              static_cast<double>(moe.expert_hidden_size());
  const double width = std::max(static_cast<double>(model.ffn_hidden_size()), expert_width);
  return static_cast<double>(model.num_layers()) * hidden *
         (heads * static_cast<double>(model.head_dim()) + 3 * width);
}

bool HasDenseLayer(const ModelConfig& model) {
  for (int layer = 0; layer < model.num_layers(); ++layer) {
    if (!IsMoeLayer(model, layer)) return true;
  }
  return false;
}

void CheckModel(const ModelConfig& model, Errors* errors) {
  const int64_t heads = model.num_heads();
  Require(heads % model.num_kv_heads() == 0, "model.num_kv_heads",
          absl::StrCat(model.num_kv_heads(), " does not divide model.num_heads ", heads, ", use ",
                       NearestDivisors(model.num_kv_heads(), heads, {heads})),
          errors);
  Require(model.head_dim() > 0, "model.hidden_size",
          absl::StrCat(model.hidden_size(), " is no multiple of model.num_heads ", heads, ", use ",
                       NearestMultiples(model.hidden_size(), heads), " or set model.head_dim"),
          errors);
  Require(model.head_dim() % 2 == 0, "model.head_dim",
          absl::StrCat(model.head_dim(), " is odd, must be even for rotary embedding"), errors);
  Require(!HasDenseLayer(model) || model.ffn_hidden_size() > 0, "model.ffn_hidden_size",
          "is 0, but there are layers without experts, must be at least 1", errors);
  constexpr double kMaxParameters = 1e15;
  const double parameters = CountParameters(model);
  Require(
      parameters <= kMaxParameters, "model",
      absl::StrFormat("has %.1e parameters, must have at most %.0e", parameters, kMaxParameters),
      errors);
}

void CheckMoe(const ModelConfig& model, Errors* errors) {
  const MoeConfig& moe = model.moe();
  const int64_t experts = moe.num_experts();
  if (experts == 0) return;
  Require(moe.top_k() <= experts, "model.moe.top_k",
          absl::StrCat(moe.top_k(), " is more than model.moe.num_experts ", experts,
                       ", must be at most ", experts),
          errors);
  Require(moe.expert_hidden_size() > 0, "model.moe.expert_hidden_size",
          "is 0, but there are experts, must be at least 1", errors);
  std::set<int> seen;
  for (int i = 0; i < moe.layers_size(); ++i) {
    const int layer = moe.layers(i);
    const std::string path = absl::StrCat("model.moe.layers[", i, "]");
    Require(layer >= 0 && layer < model.num_layers(), path,
            absl::StrCat(layer, " is no layer, must be from 0 to ", model.num_layers() - 1),
            errors);
    Require(seen.insert(layer).second, path, absl::StrCat(layer, " is given twice"), errors);
  }
}

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
  Require(model.qk_norm() != ModelConfig::WHOLE, kPath,
          absl::StrCat(size, " cuts heads that model.qk_norm WHOLE normalises together, must be 1"),
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

void CheckParallel(const RunConfig& config, Errors* errors) {
  const ParallelConfig& parallel = config.parallel();
  CheckPipelineLayers(config, errors);
  CheckTensorSize(config, errors);
  CheckSequenceCut(config, errors);
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

void CheckDomain(const DomainConfig& domain, const std::string& path, Errors* errors) {
  constexpr size_t kLongestName = 64;
  const std::string& name = domain.name();
  const bool good = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::islower(c) || std::isdigit(c) || c == '_' || c == '-';
  });
  Require(good && !name.empty() && name.size() <= kLongestName, path + ".name",
          absl::StrCat("\"", Printable(name.substr(0, kLongestName)),
                       "\" is not allowed, must be 1 to ", kLongestName,
                       " of a-z, 0-9, \"_\" and \"-\""),
          errors);
  Require(domain.files_size() > 0, path + ".files", "is empty, must name at least one file",
          errors);
  for (int i = 0; i < domain.files_size(); ++i) {
    CheckPath(domain.files(i), absl::StrCat(path, ".files[", i, "]"), errors);
  }
}

void CheckTokenizer(const RunConfig& config, Errors* errors) {
  constexpr int64_t kByteTokens = 257;
  const TokenizerConfig& tokenizer = config.data().tokenizer();
  const bool bytes = tokenizer.kind() == TokenizerConfig::BYTES;
  const int64_t tokens = bytes ? kByteTokens : tokenizer.vocab_size();
  const int64_t vocab = config.model().vocab_size();
  Require(vocab == 0 || vocab >= tokens, "model.vocab_size",
          absl::StrCat(vocab, " is less than the ", tokens,
                       " tokens of data.tokenizer, must be 0 (as many) or at least ", tokens),
          errors);
}

void CheckData(const RunConfig& config, Errors* errors) {
  constexpr int kMaxDomains = 1000;
  const DataConfig& data = config.data();
  const bool derived = data.dir() == config.run().dir() + "/data";
  if (!derived) CheckPath(data.dir(), "data.dir", errors);
  Require(data.domains_size() >= 1 && data.domains_size() <= kMaxDomains, "data.domains",
          absl::StrCat("there are ", data.domains_size(), ", must be 1 to ", kMaxDomains), errors);
  std::set<std::string> names;
  for (int i = 0; i < data.domains_size(); ++i) {
    const std::string path = absl::StrCat("data.domains[", i, "]");
    CheckDomain(data.domains(i), path, errors);
    const std::string& name = data.domains(i).name();
    Require(names.insert(name).second, path + ".name",
            absl::StrCat("\"", Printable(name), "\" is given twice, must be unique"), errors);
  }
  Require(!data.text_key().empty(), "data.text_key", "is empty, must be a key of JSONL records",
          errors);
  CheckTokenizer(config, errors);
}

void CheckOptimizer(const RunConfig& config, Errors* errors) {
  const OptimizerConfig& optimizer = config.optimizer();
  const int64_t steps = config.train().num_steps(), warmup = optimizer.warmup_steps();
  Require(warmup < steps, "optimizer.warmup_steps",
          absl::StrCat(warmup, " is not less than train.num_steps ", steps, ", must be at most ",
                       steps - 1),
          errors);
  if (optimizer.schedule() != OptimizerConfig::WSD || warmup >= steps) return;
  const int64_t decay = optimizer.decay_steps();
  Require(decay >= 1 && warmup + decay <= steps, "optimizer.decay_steps",
          absl::StrCat(decay,
                       " does not fit schedule WSD, must be at least 1 and at most "
                       "train.num_steps - warmup_steps = ",
                       steps - warmup),
          errors);
}

}  // namespace

bool IsMoeLayer(const ModelConfig& model, int layer) {
  const MoeConfig& moe = model.moe();
  if (moe.num_experts() == 0) return false;
  const auto& layers = moe.layers();
  return layers.empty() || std::find(layers.begin(), layers.end(), layer) != layers.end();
}

std::vector<ConfigError> FindErrors(const RunConfig& config) {
  Errors errors;
  CheckFields(config, "", &errors);
  if (!errors.empty()) return errors;
  CheckPath(config.run().dir(), "run.dir", &errors);
  CheckTrain(config, &errors);
  CheckParallel(config, &errors);
  CheckModel(config.model(), &errors);
  CheckMoe(config.model(), &errors);
  CheckData(config, &errors);
  CheckOptimizer(config, &errors);
  return errors;
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
