#include "launcher/plan_report.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

constexpr int64_t kMiB = 1 << 20;

const PlanSubject kSubject{.tokenizer_vocab_size = 257,
                           .num_ranks = 4,
                           .device = "abacus",
                           .memory_bytes = 100 * kMiB,
                           .parameters = {.dense = 1000, .experts = 8000, .active_experts = 2000}};

// Two stages of two ranks; the second one is fuller and slower.
StepPlan Plan() {
  StepPlan plan{.seconds = 2, .tokens = 1000, .model_flops = 4e12, .peak_flops = 1e12};
  plan.num_ranks = 4;
  plan.stages.resize(2);
  plan.stages[0].memory.peak = 30 * kMiB;
  plan.stages[0].micro_batches = {.compute = 1, .exchange = 0.25};
  plan.stages[0].bubble = 0.75;
  plan.stages[1].memory.activations = 20 * kMiB;
  plan.stages[1].memory.scratch = 2 * kMiB;
  plan.stages[1].memory.peak = 60 * kMiB;
  plan.stages[1].memory.host = 7 * kMiB;
  plan.stages[1].micro_batches = {.compute = 1.5, .exchange = 0.25};
  plan.stages[1].rest = {.compute = 0.25};
  plan.stages[1].ops["linear"] = {.count = 3, .seconds = 1, .flops = 5e11};
  for (int i = 0; i < 12; ++i) {
    plan.stages[1].ops["short " + std::to_string(i)] = {.count = 2, .seconds = 1.0 / 12};
  }
  plan.timeline.stages.resize(2);
  plan.timeline.makespan = 2;
  plan.timeline.stages[0].timeline = {{{Action::Kind::kForward, 0, 0}, 0, 0.5},
                                      {{Action::Kind::kBackward, 0, 0}, 1.5, 2}};
  plan.timeline.stages[1].timeline = {{{Action::Kind::kForward, 0, 0}, 0.5, 1},
                                      {{Action::Kind::kBackward, 0, 0}, 1, 1.5}};
  plan.fullest_stage = plan.slowest_stage = 1;
  return plan;
}

void ExpectHas(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << part << "\nis not in\n" << text;
}

TEST(PlanText, TellsParametersTimeAndMemory) {
  const std::string text = PlanText(kSubject, Plan());
  ExpectHas(text, "9,000, 3,000 active");
  ExpectHas(text, "4 of \"abacus\"");
  ExpectHas(text, "500, 125 a rank");
  ExpectHas(text, "50.0%: 0.5 TFLOP/s of 1 a rank");
  ExpectHas(text, "62.0         7.0  the fullest");
  ExpectHas(text, "fits the 100.0 of a device");
  ExpectHas(text, "|" + std::string(22, 'F') + std::string(44, '.') + std::string(22, 'B') + "|");
  ExpectHas(text, "stage 1, a whole step");
  ExpectHas(text, "linear                             3      1.0000 s  50.0%    0.5 TFLOP/s");
  ExpectHas(text, "1 others                           2      0.0833 s   4.2%");
  ExpectHas(text, "together                          27      2.0000 s 100.0%");
}

TEST(PlanText, SaysWhatDoesNotFit) {
  PlanSubject small = kSubject;
  small.memory_bytes = 61 * kMiB;
  ExpectHas(PlanText(small, Plan()), "DOES NOT FIT the 61.0 of a device");
}

TEST(SearchText, TellsWhatIsKeptAndWhatFailed) {
  SearchResult result;
  result.best.push_back({RunConfig(), Plan()});
  EXPECT_EQ(SearchText(kSubject, result).find("kept"), std::string::npos);
  result.kept = {.micro_batch_size = 4, .num_micro_batches = 2};
  result.failures.push_back({"no luck", 3, "--set parallel.tensor_size=2"});
  const std::string text = SearchText(kSubject, result);
  ExpectHas(
      text,
      "kept               train.micro_batch_size 4, which balance losses with scope "
      "MICRO_BATCH depend on; 2 micro-batches a rank, which global_counts RUNNING depends on\n");
  ExpectHas(text,
            "failed             3 layouts could not be planned: no luck (--set "
            "parallel.tensor_size=2)\n");
  const auto json = SearchJson(kSubject, result);
  EXPECT_EQ(json["kept"]["num_micro_batches"], 2);
  EXPECT_EQ(json["failed"][0]["count"], 3);
}

TEST(PlanJson, HasTheSameNumbers) {
  const auto json = PlanJson(kSubject, Plan());
  EXPECT_EQ(json["parameters"]["active"], 3000);
  EXPECT_EQ(json["step"]["tokens_per_second"], 500);
  EXPECT_EQ(json["step"]["mfu"], 0.5);
  EXPECT_EQ(json["fullest_rank"], 2);
  EXPECT_EQ(json["peak_bytes"], 62 * kMiB);
  EXPECT_EQ(json["host_bytes"], 7 * kMiB);
  EXPECT_EQ(json["stages"][0]["bytes"]["host"], 0);
  EXPECT_EQ(json["stages"][1]["bytes"]["activations"], 20 * kMiB);
  EXPECT_EQ(json["stages"][0]["bubble_seconds"], 0.75);
  EXPECT_EQ(json["stages"][1]["ops"][0]["seconds"], 1);
  EXPECT_EQ(json["stages"][0]["timeline"][1]["kind"], "B");
  EXPECT_EQ(json["stages"][0]["timeline"][1]["start"], 1.5);
}

}  // namespace
}  // namespace moebius
