#include "kernels/weight_images.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd_amx_software.h"
#include "kernels/cpu/weight_images.h"
#include "tests/testing/random_tensors.h"
#include "tests/testing/tolerance.h"

namespace moebius::kernels {
namespace {

struct Case {
  Shape w;
  DType dtype;
  bool transposed;
  const cpu::SimdKernels* simd;

  int64_t matrices() const { return w.rank() == 3 ? w[0] : 1; }
  int64_t N() const { return w[w.rank() - 2]; }
  int64_t K() const { return w[w.rank() - 1]; }
  cpu::WeightDims dims() const {
    return transposed ? cpu::WeightDims{.outputs = K(), .inputs = N()}
                      : cpu::WeightDims{.outputs = N(), .inputs = K()};
  }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.w << " " << NameOf(c.dtype) << (c.transposed ? " transposed " : " ") << c.simd->name;
}

// One element, whole and cut panels, an odd number of inputs, columns of several blocks.
std::vector<Case> Cases() {
  static const cpu::SimdKernels software_amx = cpu::SoftwareAmxKernels();
  std::vector<const cpu::SimdKernels*> all = cpu::SupportedSimd();
  all.push_back(&software_amx);
  std::vector<Case> cases;
  for (const Shape& w : {Shape{1, 1}, Shape{32, 64}, Shape{70, 129}, Shape{2, 4107},
                         Shape{3, 33, 31}, Shape{2, 64, 96}, Shape{5, 7, 1}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const bool transposed : {false, true}) {
        for (const auto* simd : all) cases.push_back({w, dtype, transposed, simd});
      }
    }
  }
  return cases;
}

class WeightImagesTest : public testing::TestWithParam<Case> {
 protected:
  // Whose bytes are no number that a weight has.
  Tensor EmptyImage() {
    const Case& c = GetParam();
    const int64_t elements = cpu::PackedElements(c.dims(), c.dtype, *c.simd);
    const Tensor image = context_.Empty(c.dtype, {c.matrices(), elements}, "image");
    std::memset(image.raw(), 0xFF, static_cast<size_t>(image.bytes()));
    return image;
  }

  Context context_{{.num_threads = 2}};
};

// The unit of an image, by its definition.
uint32_t UnitOf(const Case& c, const float* matrix, int64_t output, int64_t unit, bool pairs) {
  const auto element = [&](int64_t input) {
    if (output >= c.dims().outputs || input >= c.dims().inputs) return 0.0f;
    return c.transposed ? matrix[input * c.K() + output] : matrix[output * c.K() + input];
  };
  if (!pairs) return std::bit_cast<uint32_t>(element(unit));
  return BF16(element(2 * unit)).bits | uint32_t{BF16(element(2 * unit + 1)).bits} << 16;
}

TEST_P(WeightImagesTest, HoldPanelsOfUnits) {
  const Case& c = GetParam();
  const Tensor w = test::RandomTensor(context_, DType::kF32, c.w, "w");
  const Tensor image = EmptyImage();
  cpu::PackWeight(w, {c.transposed, image}, context_, *c.simd);

  const bool pairs = c.dtype == DType::kBF16 && c.simd->product_bf16 != nullptr;
  const int64_t units = pairs ? (c.dims().inputs + 1) / 2 : c.dims().inputs;
  const int64_t panels = (c.dims().outputs + c.simd->panel - 1) / c.simd->panel;
  ASSERT_EQ(image.bytes(), 4 * c.matrices() * panels * units * c.simd->panel);
  const std::byte* at = image.raw();
  for (int64_t j = 0; j < c.matrices(); ++j) {
    const float* matrix = w.data<float>() + j * c.N() * c.K();
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t u = 0; u < units; ++u) {
        for (int64_t i = 0; i < c.simd->panel; ++i, at += 4) {
          uint32_t unit;
          std::memcpy(&unit, at, sizeof unit);
          ASSERT_EQ(unit, UnitOf(c, matrix, p * c.simd->panel + i, u, pairs))
              << "matrix " << j << ", panel " << p << ", unit " << u << ", output " << i;
        }
      }
    }
  }
}

struct Update {
  Update(Context& context, const Shape& shape)
      : value(test::RandomTensor(context, DType::kF32, shape, "value")),
        gradient(test::RandomTensor(context, DType::kF32, shape, "gradient")),
        m(test::RandomTensor(context, DType::kF32, shape, "m")),
        v(test::RandomTensor(context, DType::kF32, shape, "v")) {
    for (float& x : v.span<float>()) x *= x;
  }

  void Run(std::span<const AdamWArgs::Image> images, Context& context,
           const cpu::SimdKernels& simd) const {
    cpu::AdamW({.value = value,
                .gradient = gradient,
                .m = m,
                .v = v,
                .state = test::FromValues(context, DType::kF64, {StepState::kSize},
                                          {/*step=*/3, /*learning_rate=*/0.1,
                                           /*clip_scale=*/0.5, /*updates=*/1, 0, 0}),
                .beta1 = 0.9,
                .beta2 = 0.95,
                .epsilon = 1e-8,
                .weight_decay = 0.1,
                .images = images},
               context, simd);
  }

  Tensor value, gradient, m, v;
};

// To the bit: the update without images, and the image of what it left.
TEST_P(WeightImagesTest, AreWrittenByTheUpdate) {
  const Case& c = GetParam();
  const Update plain(context_, c.w), update(context_, c.w);
  plain.Run({}, context_, *c.simd);
  const Tensor expected = EmptyImage();
  cpu::PackWeight(plain.value, {c.transposed, expected}, context_, *c.simd);

  const AdamWArgs::Image image = {
      c.transposed ? WeightFormat::kPackedTransposed : WeightFormat::kPacked, EmptyImage()};
  update.Run(std::span(&image, 1), context_, *c.simd);
  test::ExpectSameBits(update.value, plain.value);
  test::ExpectSameBits(update.m, plain.m);
  test::ExpectSameBits(update.v, plain.v);
  test::ExpectSameBits(image.tensor, expected);
}

INSTANTIATE_TEST_SUITE_P(All, WeightImagesTest, testing::ValuesIn(Cases()));

// All images of a weight at once, and what the observer is told of them.
TEST(WeightImages, OfTwoDtypesAreWrittenByOneUpdate) {
  struct Bytes final : WorkObserver {
    void OpBegins(const Work& work) override { sum += work.bytes; }
    int64_t sum = 0;
  } told;
  Context context({.num_threads = 2, .observer = &told});
  const Shape shape = {3, 45, 67};
  const Update update(context, shape);
  std::vector<AdamWArgs::Image> images;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const WeightFormat format : {WeightFormat::kPacked, WeightFormat::kPackedTransposed}) {
      images.push_back({format, MakeWeightImage(update.value, format, dtype, context)});
    }
  }
  context.BeginStep(1, 0.1);
  told.sum = 0;
  AdamW({.value = update.value,
         .gradient = update.gradient,
         .m = update.m,
         .v = update.v,
         .state = context.step_state(),
         .beta1 = 0.9,
         .beta2 = 0.95,
         .epsilon = 1e-8,
         .weight_decay = 0,
         .images = images},
        context);
  int64_t untold = told.sum - 7 * update.value.bytes();
  for (const auto& [format, image] : images) {
    test::ExpectSameBits(image, MakeWeightImage(update.value, format, image.dtype(), context));
    untold -= image.bytes();
  }
  EXPECT_EQ(untold, 0);
}

}  // namespace
}  // namespace moebius::kernels
