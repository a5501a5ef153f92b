// Import and export, against the files that transformers wrote and against each other.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/files.h"
#include "core/tensor/context.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/reader.h"
#include "train/hugging_face/writer.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Tensors = std::map<std::string, SafetensorsFile::Entry>;

const char* const kFixtures[] = {"qwen3_moe", "qwen3_moe_tied", "olmoe", "mixtral"};

std::string Fixture(const std::string& name) { return "tests/golden/fixtures/" + name; }

std::string Scratch(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
}

HuggingFaceReader Opened(const std::string& directory) {
  auto reader = HuggingFaceReader::Open(directory);
  CHECK(reader.ok()) << reader.status().ToString();
  return *std::move(reader);
}

// Reads `from` with master weights of type `master` and writes it to `to`.
absl::Status Convert(const std::string& from, const std::string& to, DType master, DType dtype) {
  Context context;
  const HuggingFaceReader reader = Opened(from);
  std::map<std::string, Tensor> parameters;
  for (const MappedParameter& parameter : reader.parameters()) {
    Tensor& value = parameters[parameter.name];
    value = context.Empty(master, parameter.shape, "parameter");
    reader.Read(parameter, value);
  }
  return WriteHuggingFace(
      reader.model(), {.layout = reader.layout(), .dtype = dtype, .max_position_embeddings = 64},
      [&](const std::string& name) { return parameters.at(name); }, to);
}

SafetensorsFile Weights(const std::string& directory) {
  auto file = SafetensorsFile::Open(directory + "/model.safetensors");
  CHECK(file.ok()) << file.status().ToString();
  return *std::move(file);
}

void ExpectSameBits(const Tensors& a, const Tensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, entry] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_EQ(entry.dtype, b.at(name).dtype) << name;
    EXPECT_EQ(entry.shape, b.at(name).shape) << name;
    EXPECT_TRUE(std::ranges::equal(entry.bytes, b.at(name).bytes)) << name;
  }
}

class HuggingFaceTest : public testing::TestWithParam<const char*> {
 protected:
  const std::string fixture_ = Fixture(GetParam());
  const std::string scratch_ = Scratch(GetParam());
};

TEST_P(HuggingFaceTest, ExportsTheBitsThatItImported) {
  for (const DType master : {DType::kF32, DType::kF64}) {
    ASSERT_TRUE(Convert(fixture_, scratch_, master, DType::kF32).ok());
    ExpectSameBits(Weights(fixture_).entries(), Weights(scratch_).entries());
    EXPECT_EQ(Opened(scratch_).model().SerializeAsString(),
              Opened(fixture_).model().SerializeAsString());
  }
}

TEST_P(HuggingFaceTest, RoundsToBf16OnceAndReadsItBackExactly) {
  const std::string again = Scratch(std::string(GetParam()) + "_again");
  ASSERT_TRUE(Convert(fixture_, scratch_, DType::kF32, DType::kBF16).ok());
  ASSERT_TRUE(Convert(scratch_, again, DType::kF32, DType::kBF16).ok());
  ExpectSameBits(Weights(scratch_).entries(), Weights(again).entries());

  const auto original = Weights(fixture_), rounded = Weights(scratch_);
  for (const auto& [name, entry] : original.entries()) {
    const auto* from = reinterpret_cast<const float*>(entry.bytes.data());
    const auto* to = reinterpret_cast<const BF16*>(rounded.entries().at(name).bytes.data());
    for (int64_t i = 0; i < entry.shape.num_elements(); ++i) {
      ASSERT_EQ(to[i].bits, BF16(from[i]).bits) << name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, HuggingFaceTest, testing::ValuesIn(kFixtures));

// A copy of a fixture whose weights `change` may alter, drop, add to or move to other files.
class Tampered {
 public:
  struct Weight {
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };
  using Weights = std::map<std::string, Weight>;

  explicit Tampered(const std::string& fixture) : directory_(Scratch("tampered")) {
    fs::copy(Fixture(fixture) + "/config.json", directory_ + "/config.json");
    const SafetensorsFile original = moebius::Weights(Fixture(fixture));
    for (const auto& [name, entry] : original.entries()) {
      weights[name] = {entry.dtype, entry.shape, {entry.bytes.begin(), entry.bytes.end()}};
    }
  }

  void Write(const std::string& file, const Weights& some) const {
    std::vector<SafetensorsWriter::Description> descriptions;
    for (const auto& [name, weight] : some) {
      descriptions.push_back({name, weight.dtype, weight.shape});
    }
    auto writer = SafetensorsWriter::Create(directory_ + "/" + file, descriptions);
    for (const auto& [name, weight] : some) CHECK(writer->Write(name, weight.bytes).ok());
    CHECK(writer->Close().ok());
  }

  std::string Error() const {
    Write("model.safetensors", weights);
    return std::string(HuggingFaceReader::Open(directory_).status().message());
  }

  const std::string& directory() const { return directory_; }

  Weights weights;

 private:
  const std::string directory_;
};

TEST(HuggingFaceErrorsTest, NamesTheTensorThatIsMissingUnknownOrMisshaped) {
  const std::string gate = "model.layers.1.mlp.experts.4.gate_proj.weight";
  Tampered missing("olmoe");
  missing.weights.erase(gate);
  EXPECT_EQ(missing.Error(), missing.directory() + ": tensor " + gate + " is missing");

  Tampered misshaped("olmoe");
  misshaped.weights.at(gate).shape = {24, 16};
  EXPECT_EQ(misshaped.Error(), misshaped.directory() + "/model.safetensors: tensor " + gate +
                                   " is [24, 16], by config.json it must be [16, 24]");

  Tampered unknown("olmoe");
  unknown.weights["model.layers.0.self_attn.q_proj.bias"] = unknown.weights.at("model.norm.weight");
  EXPECT_EQ(unknown.Error(), unknown.directory() +
                                 "/model.safetensors: tensor model.layers.0.self_attn.q_proj.bias "
                                 "belongs to no part of the model that config.json describes");

  Tampered integers("olmoe");
  integers.weights.at(gate).dtype = DType::kI32;
  EXPECT_EQ(integers.Error(), integers.directory() + "/model.safetensors: tensor " + gate +
                                  " is I32, must be F32 or BF16");
}

TEST(HuggingFaceErrorsTest, AcceptsACopyOfTheTiedEmbeddingOnly) {
  Tampered tied("qwen3_moe_tied");
  tied.weights["lm_head.weight"] = tied.weights.at("model.embed_tokens.weight");
  EXPECT_EQ(tied.Error(), "");
  tied.weights["lm_head.weight"].bytes[2] ^= std::byte{1};
  EXPECT_NE(tied.Error(), "");
}

TEST(HuggingFaceErrorsTest, IgnoresRotaryFrequenciesOfOldFiles) {
  Tampered old("mixtral");
  old.weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      DType::kF32, {5}, std::vector<std::byte>(20)};
  EXPECT_EQ(old.Error(), "");
}

class ShardsTest : public testing::Test {
 protected:
  // Splits the weights by name into two files and writes the index that belongs to them.
  ShardsTest() : model_("mixtral") {
    json weight_map;
    for (const auto& [name, weight] : model_.weights) {
      const bool first = name < "model.layers.1";
      (first ? first_ : second_)[name] = weight;
      weight_map[name] =
          first ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
    }
    model_.Write("model-00001-of-00002.safetensors", first_);
    model_.Write("model-00002-of-00002.safetensors", second_);
    WriteIndex(weight_map);
  }

  void WriteIndex(const json& weight_map) {
    std::ofstream(model_.directory() + "/model.safetensors.index.json")
        << json{{"metadata", {{"total_size", 0}}}, {"weight_map", weight_map}};
  }
  std::string Error() const {
    return std::string(HuggingFaceReader::Open(model_.directory()).status().message());
  }

  Tampered model_;
  Tampered::Weights first_, second_;
};

TEST_F(ShardsTest, AreOneModel) {
  const std::string to = Scratch("joined");
  ASSERT_TRUE(Convert(model_.directory(), to, DType::kF32, DType::kF32).ok());
  ExpectSameBits(Weights(Fixture("mixtral")).entries(), Weights(to).entries());
}

TEST_F(ShardsTest, MayNotHoldATensorTwice) {
  second_["model.embed_tokens.weight"] = model_.weights.at("model.embed_tokens.weight");
  model_.Write("model-00002-of-00002.safetensors", second_);
  EXPECT_EQ(Error(), model_.directory() +
                         "/model-00002-of-00002.safetensors: tensor model.embed_tokens.weight "
                         "stands in " +
                         model_.directory() + "/model-00001-of-00002.safetensors too");
}

TEST_F(ShardsTest, MustStandBesideTheIndex) {
  WriteIndex({{"lm_head.weight", "../model.safetensors"}});
  EXPECT_EQ(Error(), model_.directory() +
                         "/model.safetensors.index.json: weight_map.lm_head.weight: is "
                         "\"../model.safetensors\", must name a file beside it");
}

TEST(WriteHuggingFaceTest, WritesNothingThatTheLayoutCannotExpress) {
  const std::string directory = testing::TempDir() + "/inexpressible";
  fs::remove_all(directory);
  const HuggingFaceReader reader = Opened(Fixture("olmoe"));
  const absl::Status status = WriteHuggingFace(
      reader.model(), {.layout = HuggingFaceLayout::kMixtral},
      [](const std::string&) { return absl::InternalError("must not be asked"); }, directory);
  EXPECT_EQ(status.message(), "the layout mixtral cannot express model.qk_norm: WHOLE, only NONE");
  EXPECT_FALSE(fs::exists(directory));
}

}  // namespace
}  // namespace moebius
