// Broken configs, one table: each must be refused with exactly the error that helps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "configs/load.h"

namespace moebius {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kGood[] = R"(run { dir: "runs/small" }
train {
  num_steps: 10
  global_batch_size: 4
  sequence_length: 8
}
model {
  num_layers: 2
  hidden_size: 16
  num_heads: 4
  moe { num_experts: 4 expert_hidden_size: 8 }
}
data {
  domains { name: "a" files: "a.txt" }
  domains { name: "b" files: "b.txt" }
}
)";

// The good config with `from` replaced by `to`, and the error expected of it after "broken:".
struct Broken {
  std::string from, to, error;
};

std::vector<std::string> ErrorsOf(const std::string& text,
                                  const std::vector<std::string>& overrides = {}) {
  const absl::StatusOr<RunConfig> config = ParseRunConfig("broken", text, overrides);
  if (config.ok()) return {"no error"};
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(std::string(config.status().message()), '\n');
}

const Broken kBroken[] = {
    // Names.
    {"num_steps: 10", "num_step: 10",
     "3:3: train.num_step: no such field, did you mean \"num_steps\"?"},
    {"train {", "trian {", "2:1: trian: no such field, did you mean \"train\"?"},
    {"expert_hidden_size", "expert_hiden_size",
     "11:24: model.moe.expert_hiden_size: no such field, did you mean \"expert_hidden_size\"?"},
    {"files: \"a.txt\"", "file: \"a.txt\"",
     "14:23: data.domains.file: no such field, did you mean \"files\"?"},
    {"num_layers: 2", "num_experts: 4 num_layers: 2",
     "8:3: model.num_experts: no such field here, did you mean \"model.moe.num_experts\"?"},
    {"num_steps: 10", "zzz: 1 num_steps: 10",
     "3:3: train.zzz: no such field, use one of num_steps, global_batch_size, micro_batch_size, "
     "sequence_length, log_interval_steps, eval_interval_steps, eval_max_tokens_per_domain, "
     "max_bad_steps"},
    // Types.
    {"num_steps: 10", "num_steps: 1.5",
     "3:3: train.num_steps: found 1.5, must be an integer, at least 1 and at most 1000000000"},
    {"num_steps: 10", "num_steps: many",
     "3:3: train.num_steps: found many, must be an integer, at least 1 and at most 1000000000"},
    {"num_steps: 10", "num_steps: \"10\"",
     "3:3: train.num_steps: found \"10\", must be an integer, at least 1 and at most 1000000000"},
    {"num_steps: 10", "num_steps: { }",
     "3:3: train.num_steps: found {, must be an integer, at least 1 and at most 1000000000"},
    {"num_steps: 10", "num_steps: 99999999999999999999",
     "3:3: train.num_steps: 99999999999999999999 is out of range, must be an integer, at least 1 "
     "and at most 1000000000"},
    {"dir: \"runs/small\"", "dir: runs", "1:7: run.dir: found runs, must be a string in quotes"},
    {"dir:", "seed: -1 dir:", "1:7: run.seed: found -, must be an integer, not negative"},
    {"num_heads: 4", "num_heads: 4 tie_embeddings: maybe",
     "10:16: model.tie_embeddings: maybe is not allowed, must be true or false"},
    {"num_heads: 4", "num_heads: 4 tie_embeddings: \"yes\"",
     "10:16: model.tie_embeddings: found \"yes\", must be true or false"},
    {"train {", "precision: FP32 train {",
     "2:1: precision: found FP32, must be { ... } with any of compute"},
    // Enums.
    {"train {", "precision { compute: FP8 } train {",
     "2:13: precision.compute: FP8 is not allowed, must be one of FP64, FP32, BF16"},
    {"train {", "precision { compute: fp32 } train {",
     "2:13: precision.compute: fp32 is not allowed, must be one of FP64, FP32, BF16; did you mean "
     "FP32?"},
    {"train {", "precision { compute: \"FP32\" } train {",
     "2:13: precision.compute: found \"FP32\", must be one of FP64, FP32, BF16"},
    {"num_heads: 4", "num_heads: 4 qk_norm: PERHEAD",
     "10:16: model.qk_norm: PERHEAD is not allowed, must be one of NONE, PER_HEAD, WHOLE; did you "
     "mean PER_HEAD?"},
    {"moe {", "moe { router { score: SIGMOD }",
     "11:18: model.moe.router.score: SIGMOD is not allowed, must be one of SOFTMAX, SIGMOID; did "
     "you mean SIGMOID?"},
    // The text itself.
    {"num_steps: 10", "num_steps 10", "3:13: Expected \":\", found \"10\"."},
    {"num_steps: 10", "num_steps: 10 num_steps: 11",
     "3:17: train.num_steps: given twice, give it once"},
    {"data {", "run { } data {", "13:1: run: given twice, give it once"},
    {"\"b.txt\" }\n}", "\"b.txt\" }\n", "17:1: the text ends too early, is a closing } missing?"},
    {"8\n}", "8\n}}", "6:2: Expected identifier, got: }"},
    {"\"runs/small\"", "\"runs/small", "1:25: String literals cannot cross line boundaries."},
    {"train {", "5: 3 train {", "2:2: no such field: 5"},
    {"train {", "\xC3\xA4: 3 train {", "2:1: only strings and comments may go beyond ASCII"},
    {"train {", "\x01 train {", "2:1: unprintable character, a config is plain text"},
    {"train {", "train { [a.b]: 1", "2:14: a name in [ ] is an extension, and there are none"},
    // Ranges.
    {"num_steps: 10", "num_steps: -1",
     "3:3: train.num_steps: -1 is out of range, must be at least 1 and at most 1000000000"},
    {"num_steps: 10", "num_steps: 0",
     "3:3: train.num_steps: 0 is out of range, must be at least 1 and at most 1000000000"},
    {"hidden_size: 16", "hidden_size: -16",
     "9:3: model.hidden_size: -16 is out of range, must be at least 1 and at most 1048576"},
    {"hidden_size: 16", "hidden_size: 9223372036854775807",
     "9:3: model.hidden_size: 9.223372037e+18 is out of range, must be at least 1 and at most "
     "1048576"},
    {"train {", "optimizer { moments_tier: DISK } train {",
     "2:13: optimizer.moments_tier: DISK is not allowed, must be one of DEVICE, HOST"},
    {"train {", "optimizer { peak_lr: nan } train {",
     "2:13: optimizer.peak_lr: nan is out of range, must be more than 0 and at most 100"},
    {"train {", "optimizer { peak_lr: 1e999 } train {",
     "2:13: optimizer.peak_lr: inf is out of range, must be more than 0 and at most 100"},
    {"train {", "optimizer { beta1: 1 } train {",
     "2:13: optimizer.beta1: 1 is out of range, must be at least 0 and less than 1"},
    {"name: \"b\"", "name: \"b\" weight: 0",
     "15:23: data.domains[1].weight: 0 is out of range, must be more than 0 and at most "
     "1000000000"},
    {"moe {", "moe { balance { loss { } loss { weight: -inf } }",
     "11:35: model.moe.balance.loss[1].weight: -inf is out of range, must be more than 0 and at "
     "most 1000"},
    // What is missing.
    {"dir: \"runs/small\"", "", " run.dir: is required"},
    {"name: \"b\"", "", " data.domains[1].name: is required"},
    {"files: \"b.txt\"", "", " data.domains[1].files: is empty, must name at least one file"},
    {"expert_hidden_size: 8", "",
     " model.moe.expert_hidden_size: is 0, but there are experts, must be at least 1"},
    {"moe {", "moe { layers: 1",
     " model.ffn_hidden_size: is 0, but there are layers without experts, must be at least 1"},
    // What does not fit together.
    {"num_heads: 4", "num_heads: 4 num_kv_heads: 3",
     "10:16: model.num_kv_heads: 3 does not divide model.num_heads 4, use 2 or 4"},
    {"hidden_size: 16", "hidden_size: 15",
     "9:3: model.hidden_size: 15 is no multiple of model.num_heads 4, use 12 or 16 or set "
     "model.head_dim"},
    {"num_heads: 4", "num_heads: 4 head_dim: 3",
     "10:16: model.head_dim: 3 is odd, must be even for rotary embedding"},
    {"num_heads: 4", "num_heads: 4 vocab_size: 256",
     "10:16: model.vocab_size: 256 is less than the 257 tokens of data.tokenizer, must be 0 (as "
     "many) or at least 257"},
    {"moe {", "moe { top_k: 5",
     "11:9: model.moe.top_k: 5 is more than model.moe.num_experts 4, must be at most 4"},
    {"moe {", "moe { layers: 0 layers: 2 layers: 1",
     "11:19: model.moe.layers[1]: 2 is no layer, must be from 0 to 1"},
    {"moe {", "moe { layers: [1, 0, 1]", "11:9: model.moe.layers[2]: 1 is given twice"},
    {"num_steps: 10", "num_steps: 10 micro_batch_size: 3",
     "4:3: train.global_batch_size: 4 is no multiple of train.micro_batch_size 3, use 3 or 6"},
    {"4\n  sequence_length: 8\n}", "128\n  sequence_length: 16777216\n micro_batch_size: 128 }",
     "6:2: train.micro_batch_size: 128 x sequence_length x top_k is 4294967296 rows in a "
     "micro-batch, must be at most 2147483647"},
    {"train {", "parallel { tensor_size: 3 } train {",
     "2:12: parallel.tensor_size: 3 does not divide model.num_heads 4, use 2 or 4"},
    {"train {", "parallel { pipeline_size: 3 } train {",
     "2:12: parallel.pipeline_size: 3 x parallel.virtual_pipeline_size 1 are more than "
     "model.num_layers 2: a stage would be empty, use at most 2 chunks"},
    {"train {", "parallel { pipeline_size: 2 pipeline_layers: [1, 2] } train {",
     "2:29: parallel.pipeline_layers: is 1, 2, must be at least 1 each and add up to "
     "model.num_layers 2"},
    {"train {", "parallel { pipeline_size: 2 pipeline_layers: 2 } train {",
     "2:29: parallel.pipeline_layers: has 1 numbers, must have one for each of the 2 chunks "
     "(parallel.pipeline_size x parallel.virtual_pipeline_size)"},
    {"train {", "parallel { context_size: 3 tensor_size: 2 } train {",
     "5:3: train.sequence_length: 8 cannot be cut into 12 equal pieces (2 x parallel.context_size "
     "x "
     "parallel.tensor_size), use 12"},
    {"train {", "parallel { expert_tensor_size: 3 } train {",
     "2:12: parallel.expert_tensor_size: 3 does not divide model.moe.expert_hidden_size 8, use 2 "
     "or "
     "4"},
    {"train {", "precision { compute: FP64 } parallel { gradient_reduce_dtype: BF16 } train {",
     "2:40: parallel.gradient_reduce_dtype: BF16 would round the gradients of precision.compute "
     "FP64, must be FP32 (they travel as they are)"},
    {"train {", "parallel { dispatcher: ALL_GATHER exchange_capacity: 1.5 } train {",
     "2:35: parallel.exchange_capacity: 1.5 is of parallel.dispatcher ALL_TO_ALL, must be 0 under "
     "ALL_GATHER"},
    {"train {", "parallel { exchange_capacity: -1 } train {",
     "2:12: parallel.exchange_capacity: -1 is out of range, must be at least 0 and at most 65536"},
    {"train {", "parallel { expert_size: 3 } train {",
     "2:12: parallel.expert_size: 3 does not divide model.moe.num_experts 4, use 2 or 4"},
    {"train {", "optimizer { warmup_steps: 10 } train {",
     "2:13: optimizer.warmup_steps: 10 is not less than train.num_steps 10, must be at most 9"},
    {"train {", "optimizer { schedule: WSD warmup_steps: 4 decay_steps: 7 } train {",
     "2:43: optimizer.decay_steps: 7 does not fit schedule WSD, must be at least 1 and at most "
     "train.num_steps - warmup_steps = 6"},
    {"\"b\"", "\"a\"", "15:13: data.domains[1].name: \"a\" is given twice, must be unique"},
    {"\"b\"", "\"B b\"",
     "15:13: data.domains[1].name: \"B b\" is not allowed, must be 1 to 64 of a-z, 0-9, \"_\" and "
     "\"-\""},
    {"\"runs/small\"", "\"\"", "1:7: run.dir: is empty, must be a path"},
    {"\"runs/small\"", "\"a\\nb\"", "1:7: run.dir: holds a control character, must be a path"},
    {"data {", "data { text_key: \"\"",
     "13:8: data.text_key: is empty, must be a key of JSONL records"},
    {"num_layers: 2\n  hidden_size: 16",
     "num_layers: 10000 hidden_size: 1048576 ffn_hidden_size: "
     "4194304",
     "7:1: model: has 1.8e+17 parameters, must have at most 1e+15"},
};

TEST(Broken, EveryConfigIsRefusedWithPlaceFieldAndRule) {
  ASSERT_GE(std::size(kBroken), 40);
  ASSERT_TRUE(ParseRunConfig("good", kGood).ok()) << ParseRunConfig("good", kGood).status();
  for (const Broken& broken : kBroken) {
    ASSERT_THAT(kGood, HasSubstr(broken.from));
    const std::string text = absl::StrReplaceAll(kGood, {{broken.from, broken.to}});
    EXPECT_EQ(ErrorsOf(text)[0], "broken:" + broken.error) << text;
  }
}

TEST(Broken, AllMisspeltNamesAreToldInOrder) {
  const std::string text = absl::StrReplaceAll(
      kGood, {{"num_steps", "num_step"}, {"num_layers", "layers"}, {"files", "file"}});
  EXPECT_THAT(ErrorsOf(text), ElementsAre(StartsWith("broken:3:3: train.num_step: "),
                                          StartsWith("broken:8:3: model.layers: "),
                                          StartsWith("broken:14:23: data.domains.file: "),
                                          StartsWith("broken:15:23: data.domains.file: ")));
}

TEST(Broken, AllRulesBrokenAreToldInOrderOfTheFileThenOfOverrides) {
  const std::string text =
      absl::StrReplaceAll(kGood, {{"num_layers: 2", "num_layers: 0"},
                                  {"run {", "checkpoint { keep_last: 0 } run {"},
                                  {"sequence_length: 8", ""}});
  EXPECT_THAT(ErrorsOf(text, {"model.head_dim=-1", "train.num_steps=0"}),
              ElementsAre(StartsWith("broken:1:14: checkpoint.keep_last: "),
                          StartsWith("broken:8:3: model.num_layers: "),
                          StartsWith("--set model.head_dim=-1:1:7: model.head_dim: "),
                          StartsWith("--set train.num_steps=0:1:7: train.num_steps: "),
                          "broken: train.sequence_length: is required"));
}

TEST(Broken, ManyErrorsAreCutShort) {
  std::string text = kGood;
  for (int i = 0; i < 1000; ++i) text += "nonsense: 1\n";
  const std::vector<std::string> errors = ErrorsOf(text);
  EXPECT_EQ(errors.size(), 21);
  EXPECT_EQ(errors.back(), "broken: and more errors");
}

std::string Repeat(const std::string& piece, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += piece;
  return text;
}

// Hostile texts: one error that says what is wrong, at once.
TEST(Broken, HostileTextsAreRefusedQuickly) {
  const std::pair<std::string, std::string> hostile[] = {
      {"", "broken: is empty, must at least say run, train, model and data (see configs/recipes)"},
      {"# nothing\n",
       "broken: is empty, must at least say run, train, model and data (see configs/recipes)"},
      {std::string("run {\0}", 7), "broken: holds a NUL byte, must be a config in text format"},
      {Repeat("a", 10'000'000),
       "broken: is larger than 1048576 bytes, must be a config in text format"},
      {Repeat("{", 1'000'000), "broken:1:33: nested deeper than 32 levels"},
      {Repeat("[", 1'000'000), "broken:1:33: nested deeper than 32 levels"},
      {Repeat("model { ", 1'000'000), "broken:1:263: nested deeper than 32 levels"},
      {Repeat("a", 1'000'000), "broken:1:1000001: no such field: " + std::string(80, 'a') + "..."},
      {Repeat("abcd: 3\n", 1'000'000),
       "broken:1:1: abcd: no such field, use one of run, train, precision, parallel, model, data, "
       "optimizer, checkpoint"},
  };
  for (const auto& [text, error] : hostile) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(ErrorsOf(text)[0], error);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  }
}

// No prefix of a config and no flipped bit in one may crash or hang the loader.
TEST(Broken, DamagedTextsNeverCrash) {
  const std::string good = kGood;
  for (size_t size = 0; size < good.size(); ++size) {
    const std::string text = good.substr(0, size);
    EXPECT_EQ(ParseRunConfig("cut", text).ok(), size + 1 >= good.size()) << text;
  }
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string text = good;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    const absl::StatusOr<RunConfig> config = ParseRunConfig("flipped", text);
    if (config.ok()) continue;
    EXPECT_THAT(std::string(config.status().message()), StartsWith("flipped:")) << text;
  }
}

TEST(Broken, WhatIsNoFileIsSaid) {
  const std::string folder = ::testing::TempDir();
  const absl::Status missing = LoadRunConfig(folder + "/missing").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()),
              EndsWith("/missing: cannot be read: No such file or directory"));
  const auto error = [](const std::string& file) {
    return std::string(LoadRunConfig(file).status().message());
  };
  EXPECT_THAT(error(folder), EndsWith(": is a folder, must be a config file"));
  EXPECT_THAT(error("/dev/zero"), HasSubstr("is larger than"));
  std::ofstream(folder + "/empty") << "";
  EXPECT_THAT(error(folder + "/empty"), HasSubstr("is empty"));
}

// ---- Overrides ---------------------------------------------------------------------------------

TEST(BrokenOverride, IsNamedInPlaceOfTheFile) {
  const std::pair<std::string, std::string> overrides[] = {
      {"train.num_steps", "1: is not path=value, as in --set train.num_steps=100"},
      {"", "1: is not path=value, as in --set train.num_steps=100"},
      {"train.num_step=5", "1: train.num_step: no such field, did you mean \"num_steps\"?"},
      {"trian.num_steps=5", "1: trian: no such field, did you mean \"train\"?"},
      {"num_steps=5", "1: num_steps: no such field here, did you mean \"train.num_steps\"?"},
      {"train.num_steps.x=5", "1: train.num_steps: has no fields, end the path here"},
      {"train[0].num_steps=5", "1: train[0]: is not a list, leave out the index"},
      {"data.domains.weight=5", "1: data.domains: is a list, name an element as in domains[0]"},
      {"data.domains[2].weight=5", "1: data.domains[2]: no such element, must be from 0 to 1"},
      {"data.domains[-1].weight=5",
       "1: data.domains[-1]: is no path, write it as in data.domains[0].name"},
      {"data.domains[x].weight=5",
       "1: data.domains[x]: is no path, write it as in data.domains[0].name"},
      {"model.moe.balance.loss[0].weight=1",
       "1: model.moe.balance.loss[0]: is empty, set the whole list"},
      {"model.moe.layers[0]=1",
       "1: model.moe.layers[0]: its elements cannot be set one by one, set the whole list"},
      {"train.num_steps=many",
       "7: train.num_steps: found many, must be an integer, at least 1 and at most 1000000000"},
      {"train.num_steps=",
       "7: train.num_steps: has no value, must be an integer, at least 1 and at most 1000000000"},
      {"train.num_steps=5 sequence_length: 3",
       "17: train.num_steps: more than one value, give one"},
      {"train.num_steps=5 num_steps: 6", "19: train.num_steps: given twice, give it once"},
      {"train.num_steps=5 } run {", "19: Expected identifier, got: }"},
      {"train.num_steps=-5",
       "7: train.num_steps: -5 is out of range, must be at least 1 and at most 1000000000"},
      {"precision.compute=BF61",
       "11: precision.compute: BF61 is not allowed, must be one of FP64, FP32, BF16; did you mean "
       "BF16?"},
      {"data.domains[1].weight=-2",
       "17: data.domains[1].weight: -2 is out of range, must be more than 0 and at most "
       "1000000000"},
      {"data.domains[1]={name: \"a\" files: \"x\"}",
       "18: data.domains[1].name: \"a\" is given twice, must be unique"},
      {"model.moe.router={score: SIGMOD}",
       "19: model.moe.router.score: SIGMOD is not allowed, must be one of SOFTMAX, SIGMOID; did "
       "you mean SIGMOID?"},
      {"run.dir=\"abc", "13: Unexpected end of string."},
      {"run.dir=", "5: run.dir: is empty, must be a path"},
  };
  for (const auto& [override, error] : overrides) {
    EXPECT_EQ(ErrorsOf(kGood, {override})[0], "--set " + override + ":1:" + error);
  }
}

TEST(BrokenOverride, LongAndUnprintableOnesAreShownShortened) {
  const std::string error = ErrorsOf(kGood, {"train.num_steps=\n" + std::string(1000, 'x')})[0];
  EXPECT_THAT(error, StartsWith("--set train.num_steps=\\x0axxx"));
  EXPECT_LT(error.size(), 300);
}

}  // namespace
}  // namespace moebius
