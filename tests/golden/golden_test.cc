// Against transformers: imports each fixture, computes its logits, trains it for 20 steps, and
// leaves the trained model with Moebius' logits for check_export.py (README.md).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/check.h"
#include "core/base/files.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "optim/adamw.h"
#include "parallel/gradient_buckets.h"
#include "parallel/mesh.h"
#include "parallel/thread_communicator.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/reader.h"
#include "train/hugging_face/writer.h"
#include "train/step.h"

namespace moebius {
namespace {

using nlohmann::json;

// What transformers computed (expected.json, expected.safetensors).
struct Expected {
  json numbers;
  SafetensorsFile tensors;

  template <class T>
  std::vector<T> Values(const std::string& name) const {
    const SafetensorsFile::Entry entry = tensors.entries().at(name);
    CHECK(entry.dtype == kDTypeOf<T>) << name;
    std::vector<T> values(static_cast<size_t>(entry.shape.num_elements()));
    std::memcpy(values.data(), entry.bytes.data(), entry.bytes.size());
    return values;
  }
  Shape ShapeOf(const std::string& name) const { return tensors.entries().at(name).shape; }
};

Expected Load(const std::string& fixture) {
  auto tensors = SafetensorsFile::Open(fixture + "/expected.safetensors");
  CHECK(tensors.ok()) << tensors.status().ToString();
  return {json::parse(*ReadFile(fixture + "/expected.json")), *std::move(tensors)};
}

// One rank that trains an imported model with the optimizer of expected.json.
class Trainer {
 public:
  Trainer(const HuggingFaceReader& reader, DType compute, const json& optimizer,
          Communicator& world)
      : mesh_(*Mesh::Create({}, world)),
        weights_(context_),
        model_(*ModelSpec::FromProto(reader.model(), reader.model().vocab_size()),
               DtypePolicy::For(compute), *mesh_, context_),
        buckets_(model_.store().parameters(), *mesh_, context_),
        values_(buckets_.buckets(), buckets_.stage(), context_),
        optimizer_({.beta1 = optimizer.at("betas").at(0),
                    .beta2 = optimizer.at("betas").at(1),
                    .epsilon = optimizer.at("eps"),
                    .weight_decay = optimizer.at("weight_decay")},
                   buckets_, values_, context_),
        step_({.model = model_,
               .optimizer = optimizer_,
               .weights = weights_,
               .buckets = buckets_,
               .mesh = *mesh_,
               .context = context_,
               .pipeline = {}}),
        learning_rate_(optimizer.at("lr")) {
    for (Parameter* parameter : model_.store().parameters()) {
      parameters_[parameter->name] = parameter;
    }
    CHECK_EQ(parameters_.size(), reader.parameters().size());
    for (const MappedParameter& mapped : reader.parameters()) {
      reader.Read(mapped, parameters_.at(mapped.name)->value);
    }
  }

  // Of sequences [B, S]: [B, S, V], one after another.
  std::vector<double> Logits(const std::vector<int32_t>& tokens, const Shape& shape) {
    std::vector<double> logits;
    for (int64_t b = 0; b < shape[0]; ++b) {
      const std::vector<int32_t> row(tokens.begin() + b * shape[1],
                                     tokens.begin() + (b + 1) * shape[1]);
      Tape tape(context_, weights_, Tape::Mode::kForwardOnly);
      const Tensor values = model_.LastLogits(tape, Batch(row, row, 1), shape[1]);
      for (int64_t i = 0; i < values.size(); ++i) {
        logits.push_back(values.dtype() == DType::kF64 ? values.data<double>()[i]
                                                       : values.data<float>()[i]);
      }
    }
    return logits;
  }

  // One step on sequences of S + 1 tokens.
  StepResult Step(int64_t step, const int32_t* tokens, int64_t num_sequences, int64_t length) {
    std::vector<int32_t> inputs, labels;
    for (int64_t b = 0; b < num_sequences; ++b, tokens += length) {
      inputs.insert(inputs.end(), tokens, tokens + length - 1);
      labels.insert(labels.end(), tokens + 1, tokens + length);
    }
    context_.BeginStep(step, learning_rate_);
    return step_.Run({Batch(inputs, labels, num_sequences)});
  }

  absl::StatusOr<Tensor> Value(const std::string& name) const {
    return parameters_.at(name)->value;
  }

 private:
  template <class T>
  Tensor Filled(const std::vector<T>& values) {
    const Tensor tensor = context_.Empty(kDTypeOf<T>, {std::ssize(values)}, "batch");
    std::ranges::copy(values, tensor.span<T>().begin());
    return tensor;
  }

  MicroBatch Batch(const std::vector<int32_t>& inputs, const std::vector<int32_t>& labels,
                   int64_t num_sequences) {
    const size_t T = inputs.size();
    const int64_t S = std::ssize(inputs) / num_sequences;
    std::vector<int32_t> positions(T);
    std::vector<int64_t> index(T);
    for (size_t t = 0; t < T; ++t) {
      positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % S);
      index[t] = static_cast<int64_t>(t);
    }
    const bool is_double = model_.policy().master == DType::kF64;
    const Tensor document_ids = Filled(std::vector<int32_t>(T, 0));
    return {.num_sequences = num_sequences,
            .sequence_length = S,
            .tokens = Filled(inputs),
            .labels = Filled(labels),
            .positions = Filled(positions),
            .document_ids = document_ids,
            .loss_weights =
                is_double ? Filled(std::vector<double>(T, 1)) : Filled(std::vector<float>(T, 1)),
            .sequence_document_ids = document_ids,
            .shard = {.positions = S, .document_ids = document_ids, .token_index = Filled(index)}};
  }

  Context context_;
  const std::unique_ptr<Mesh> mesh_;
  kernels::ResidentWeights weights_;
  Transformer model_;
  GradientBuckets buckets_;
  ValueBuckets values_;
  AdamW optimizer_;
  TrainStep step_;
  const double learning_rate_;
  std::map<std::string, Parameter*> parameters_;
};

// Leaves the trained model, and the logits that Moebius gives it, where Bazel keeps a test's files.
void LeaveForCheckExport(const Trainer& trainer, const HuggingFaceReader& reader,
                         const Expected& expected, const std::vector<double>& logits,
                         const std::string& name) {
  const char* outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  if (outputs == nullptr) return;
  const std::string directory = std::string(outputs) + "/" + name;
  ASSERT_TRUE(WriteHuggingFace(
                  reader.model(), {.layout = reader.layout(), .max_position_embeddings = 64},
                  [&](const std::string& parameter) { return trainer.Value(parameter); }, directory)
                  .ok());
  const Shape shape = expected.ShapeOf("tokens");
  const auto tokens = expected.Values<int32_t>("tokens");
  auto writer = SafetensorsWriter::Create(
      directory + "/moebius.safetensors",
      {{"tokens", DType::kI32, shape}, {"logits", DType::kF64, expected.ShapeOf("logits")}});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Write("tokens", std::as_bytes(std::span(tokens))).ok());
  ASSERT_TRUE(writer->Write("logits", std::as_bytes(std::span(logits))).ok());
  ASSERT_TRUE(writer->Close().ok());
}

// In FP32 the promise of README.md. In FP64 what is left is rounding and the order of sums.
double Tolerance(DType compute) { return compute == DType::kF64 ? 1e-10 : 1e-4; }

double RelativeError(double value, double exact) { return std::abs(value - exact) / exact; }

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, DType>> {};

TEST_P(GoldenTest, GivesTheNumbersOfTransformers) {
  const auto [name, compute] = GetParam();
  const std::string fixture = std::string("tests/golden/fixtures/") + name;
  const Expected expected = Load(fixture);
  const bool is_double = compute == DType::kF64;
  RunOnThreads(1, [&](Communicator& world) {
    const auto reader = HuggingFaceReader::Open(fixture);
    ASSERT_TRUE(reader.ok()) << reader.status().ToString();
    Trainer trainer(*reader, compute, expected.numbers.at("optimizer"), world);

    const auto tokens = expected.Values<int32_t>("tokens");
    const auto exact_logits = expected.Values<double>("logits_fp64");
    const double spread = expected.numbers.at("logits_spread");
    const auto logits = trainer.Logits(tokens, expected.ShapeOf("tokens"));
    ASSERT_EQ(logits.size(), exact_logits.size());
    double largest = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(logits[i] - exact_logits[i]) / spread);
    }
    EXPECT_LE(largest, Tolerance(compute));

    const auto train_tokens = expected.Values<int32_t>("train_tokens");
    const Shape shape = expected.ShapeOf("train_tokens");  // [steps, B, S + 1]
    const json& losses = expected.numbers.at(is_double ? "losses_fp64" : "losses");
    const json& norms = expected.numbers.at("gradient_norms_fp64");
    double largest_loss = 0, largest_norm = 0;
    for (int64_t i = 0; i < shape[0]; ++i) {
      const int32_t* batch = train_tokens.data() + i * shape[1] * shape[2];
      const StepResult result = trainer.Step(i + 1, batch, shape[1], shape[2]);
      largest_loss = std::max(largest_loss, RelativeError(result.loss, losses.at(i)));
      largest_norm = std::max(largest_norm, RelativeError(result.gradient_norm, norms.at(i)));
    }
    EXPECT_LE(largest_loss, Tolerance(compute));
    if (is_double) {
      EXPECT_LE(largest_norm, Tolerance(compute));
    }
    std::printf("%s %s: logits %.1e of their spread; losses %.1e, gradient norms %.1e relative\n",
                name, NameOf(compute), largest, largest_loss, largest_norm);

    if (!is_double) {
      LeaveForCheckExport(trainer, *reader, expected,
                          trainer.Logits(tokens, expected.ShapeOf("tokens")), name);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenTest,
                         testing::Combine(testing::Values("qwen3_moe", "qwen3_moe_tied", "olmoe",
                                                          "mixtral"),
                                          testing::Values(DType::kF32, DType::kF64)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  NameOf(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace moebius
