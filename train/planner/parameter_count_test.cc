#include "train/planner/parameter_count.h"

#include <gtest/gtest.h>

#include "tests/testing/tiny_session.h"

namespace moebius {
namespace {

// What the model itself has.
int64_t Counted(const RunConfig& config) {
  int64_t total = 0;
  OnTinySessions(1, config, [&](Session& session) {
    for (const Parameter* parameter : session.model().store().parameters()) {
      total += parameter->placement.global_shape.num_elements();
    }
  });
  return total;
}

TEST(CountParameters, IsWhatTheModelHas) {
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {},
           {"model.tie_embeddings=true", "model.qk_norm=PER_HEAD"},
           {"model.qk_norm=WHOLE", "model.moe.layers=1", "model.ffn_hidden_size=48",
            "model.moe.num_shared_experts=2"}}) {
    const RunConfig config = TinyConfig(overrides);
    const ModelSpec spec = *ModelSpec::FromProto(config.model(), 257);
    EXPECT_EQ(CountParameters(spec).total(), Counted(config));
  }
}

TEST(CountParameters, ATokenMeetsItsExpertsAlone) {
  const RunConfig config = TinyConfig({});
  const ModelSpec spec = *ModelSpec::FromProto(config.model(), 257);
  const ParameterCount count = CountParameters(spec);
  EXPECT_EQ(count.active_experts * spec.moe.num_experts, count.experts * spec.moe.top_k);
  EXPECT_EQ(count.total() - count.active(), count.experts - count.active_experts);
  EXPECT_LT(count.active(), count.total());
}

}  // namespace
}  // namespace moebius
