// Work that a device records (Accelerator::BeginRecording), of a device alone.
#include <gtest/gtest.h>

#include <vector>

#include "core/tensor/copy.h"
#include "kernels/elementwise.h"
#include "tests/testing/device_context.h"
#include "tests/testing/random_tensors.h"

namespace moebius {
namespace {

class RecordedWorkTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(context_.accelerator(), nullptr) << "a test of a device"; }
  Accelerator& accelerator() { return *context_.accelerator(); }
  Tensor Of(const std::vector<double>& values) {
    return test::FromValues(context_, DType::kF32, {std::ssize(values)}, values);
  }

  Context context_{test::OnTestDevice(Context::Options())};
};

TEST_F(RecordedWorkTest, IsDoneWheneverItIsGivenAndNotBefore) {
  const Tensor x = Of({1, 2}), y = Of({0, 0}), z = Of({5, 5});
  context_.Wait();
  const int64_t given = accelerator().num_given();
  accelerator().BeginRecording();
  kernels::Scale(x, 3, context_);
  Copy(x, y);
  Clear(z);
  const auto work = accelerator().EndRecording();
  EXPECT_EQ(accelerator().num_given(), given);
  EXPECT_EQ(test::ToDoubles(y), (std::vector<double>{0, 0}));
  EXPECT_EQ(test::ToDoubles(z), (std::vector<double>{5, 5}));

  const int64_t before = accelerator().num_given();
  accelerator().Give(*work);
  EXPECT_EQ(accelerator().num_given(), before + 1);
  EXPECT_EQ(test::ToDoubles(y), (std::vector<double>{3, 6}));
  EXPECT_EQ(test::ToDoubles(z), (std::vector<double>{0, 0}));
  accelerator().Give(*work);
  accelerator().Give(*work);
  EXPECT_EQ(test::ToDoubles(y), (std::vector<double>{27, 54}));
}

// In the order of all work, with what stands at its addresses by then.
TEST_F(RecordedWorkTest, ReadsWhatIsThereWhenItIsGiven) {
  const Tensor x = Of({1, 2}), y = Of({0, 0});
  accelerator().BeginRecording();
  kernels::Add(x, y, y, context_);
  const auto work = accelerator().EndRecording();
  for (const double value : {10, 200}) {
    Copy(Of({value, value}), x);
    accelerator().Give(*work);
  }
  EXPECT_EQ(test::ToDoubles(y), (std::vector<double>{210, 210}));
}

TEST_F(RecordedWorkTest, KeepsTheMemoryOfTheHostThatItReads) {
  const Tensor x = Of({0});
  const auto on_host = [&](float value) {
    const Tensor host = EmptyOnHost(DType::kF32, {1}, "host", context_);
    host.data<float>()[0] = value;
    return host;
  };
  accelerator().BeginRecording();
  Copy(on_host(7), x);
  const auto work = accelerator().EndRecording();
  for (int i = 0; i < 2; ++i) {
    const Tensor other = on_host(8);
    Clear(x);
    accelerator().Give(*work);
    EXPECT_EQ(test::ToDoubles(x), std::vector<double>{7});
  }
}

TEST_F(RecordedWorkTest, HasNothingToWaitFor) {
  accelerator().BeginRecording();
  EXPECT_DEATH(context_.Wait(), "a wait while work is being recorded");
  EXPECT_DEATH(accelerator().BeginRecording(), "a recording while work is being recorded");
  const auto work = accelerator().EndRecording();
  EXPECT_DEATH((void)accelerator().EndRecording(), "nothing is being recorded");
}

}  // namespace
}  // namespace moebius
