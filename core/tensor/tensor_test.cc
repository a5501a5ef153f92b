#include "core/tensor/tensor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/tensor/context.h"

namespace moebius {
namespace {

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(BF16(1.0f)), 1.0f);
  EXPECT_EQ(BF16(std::bit_cast<float>(0x3F808000u)).bits, 0x3F80);  // tie: to even
  EXPECT_EQ(BF16(std::bit_cast<float>(0x3F818000u)).bits, 0x3F82);
  EXPECT_EQ(BF16(std::bit_cast<float>(0x3F808001u)).bits, 0x3F81);
  EXPECT_TRUE(std::isnan(static_cast<float>(BF16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(static_cast<float>(BF16(std::numeric_limits<float>::max()))));
}

TEST(Tensor, SlicesShareStorage) {
  Context context;
  const Tensor x = context.Zeros(DType::kF32, {4, 3}, "x");
  const Tensor row = x.Slice(2, 3);
  row.data<float>()[1] = 5;
  EXPECT_EQ(x.data<float>()[7], 5);
  EXPECT_EQ(row.shape(), (Shape{1, 3}));
  EXPECT_EQ(x.Reshape({12}).Slice(7, 8).data<float>()[0], 5);
  EXPECT_EQ(x.Slice(4, 4).size(), 0);
}

TEST(Tensor, MetaHasShapesButNoBytes) {
  Context context({.device = kMeta});
  const Tensor x = context.Empty(DType::kBF16, {1000, 1000, 1000}, "huge");
  EXPECT_EQ(x.bytes(), 2'000'000'000);
  EXPECT_EQ(context.arena().total().bytes, 2'000'000'000);
  EXPECT_EQ(context.arena().mapped_bytes(), 0);
  EXPECT_DEATH((void)x.raw(), "no bytes");
}

TEST(Tensor, WrongTypeAndRankAreProgrammingErrors) {
  Context context;
  const Tensor x = context.Zeros(DType::kF32, {2, 3}, "x");
  EXPECT_DEATH((void)x.data<double>(), "holds F32");
  EXPECT_DEATH((void)Dims<3>(x), "\\[2, 3\\]");
}

// What an observer is told, in order.
class Log final : public WorkObserver {
 public:
  void OpBegins(const Work& work) override { lines.push_back(std::string("op ") + work.op); }
  void OpEnds() override { lines.emplace_back("op ends"); }
  void PhaseBegins(const char* name) override { lines.push_back(std::string("phase ") + name); }
  void PhaseEnds() override { lines.emplace_back("phase ends"); }

  std::vector<std::string> lines;
};

TEST(Context, TellsItsObserverWhatRuns) {
  Log log;
  Context context({.observer = &log});
  {
    const PhaseScope phase = context.StartPhase("update");
    const OpScope outer = context.Start({.op = "outer"});
    EXPECT_FALSE(outer.is_dry());
    { const OpScope inner = context.Start({.op = "inner"}); }
  }
  EXPECT_EQ(log.lines, (std::vector<std::string>{"phase update", "op outer", "op inner", "op ends",
                                                 "op ends", "phase ends"}));
}

TEST(Context, OpsRunDryOnMeta) {
  Context context({.device = kMeta});
  EXPECT_TRUE(context.Start({.op = "add"}).is_dry());
}

}  // namespace
}  // namespace moebius
