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
#include "configs/rules.h"

namespace moebius {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

namespace {

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

}  // namespace

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

namespace {

// ---- Consistency -------------------------------------------------------------------------------

bool HasControlCharacter(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; });
}

void CheckPath(const std::string& value, const std::string& path, Errors* errors) {
  Require(!value.empty(), path, "is empty, must be a path", errors);
  Require(!HasControlCharacter(value), path, "holds a control character, must be a path", errors);
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

}  // namespace moebius
