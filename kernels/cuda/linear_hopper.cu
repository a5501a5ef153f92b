// Limited by arithmetic and L2: BF16 products of 128 x 256 or 128 x 128 tiles on the tensor cores
// of Hopper (hopper_pipeline.h counts). One block for each SM walks over tiles.
#include <type_traits>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/hopper_tiles.h"

namespace moebius::cuda {
namespace {

// sum[i] (+)= the sum of parts [num_parts, n] over the parts, in order.
__global__ void SumPartsKernel(const float* parts, int64_t num_parts, float* sum, int64_t n,
                               bool accumulate) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    float x = 0;
    for (int64_t part = 0; part < num_parts; ++part) x += parts[part * n + i];
    Put(sum[i], x, accumulate);
  }
}

// sums[r] = the sum of a row of x [R, columns], in order; of those before *end, unless it is null.
__global__ void SumRowsKernel(const float* x, int64_t columns, float* sums, int64_t R,
                              const int32_t* end) {
  const int64_t num_rows = end == nullptr ? R : *end;
  for (int64_t r = FirstIndex(); r < num_rows; r += IndexStride()) {
    float sum = 0;
    for (int64_t i = 0; i < columns; ++i) sum += x[r * columns + i];
    sums[r] = sum;
  }
}

// The ring and a table of groups share the most memory that there is, whatever the groups: so the
// limit that a kernel is given (launch.h) never changes, under ranks that share the device or
// under recorded work.
template <class Tiles>
void Start(const Tiles& tiles, int64_t most_tiles, Context& ctx) {
  CHECK_LT(most_tiles, int64_t{1} << 31) << "tiles of a product";
  const LaunchShape shape = {std::min<int64_t>(most_tiles, ChipOf(ctx).num_sms), kHopperThreads,
                             kMaxSharedBytes};
  Launch(TilesKernel<Tiles>, shape, ctx, tiles);
}

constexpr int kWide = 256, kNarrow = 128;

// Wide tiles, which take 1.6 times as long, unless narrow ones waste less or keep more SMs busy.
bool WideTiles(int64_t row_tiles, int64_t columns, Context& ctx) {
  return Ceil(columns, kWide) * 8 <= Ceil(columns, kNarrow) * 5 &&
         row_tiles * Ceil(columns, kWide) >= ChipOf(ctx).num_sms;
}

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kCellBytes == 0; }

bool Suits(int64_t num_groups, int64_t rows, int64_t inputs, int64_t outputs, Context& ctx) {
  constexpr int64_t kMostGroups =
      (kMaxSharedBytes - SliceRing<kWide>::kBytes - kAlignmentBytes) / 4 - 1;
  constexpr int64_t kMost = int64_t{1} << 30;
  return ChipOf(ctx).major == 9 && inputs % kNumbersOfCell == 0 && outputs % kNumbersOfCell == 0 &&
         num_groups <= kMostGroups && std::max({rows, inputs, outputs}) < kMost;
}

// Of the rows of one group, each multiplied by its own blocks, where there are fewer tiles than
// SMs.
int64_t NumParts(const WeightGradient<BF16>& p, Context& ctx) {
  constexpr int64_t kLeastRows = 1024;
  if (p.offsets != nullptr) return 1;
  const int64_t tiles = Ceil(p.N, kHopperRows) * Ceil(p.K, kNarrow);
  return std::max<int64_t>(std::min(ChipOf(ctx).num_sms / tiles, p.num_rows / kLeastRows), 1);
}

void StartGradient(const WeightGradient<BF16>& p, int rows_of_part, Context& ctx) {
  const int64_t row_tiles = p.num_groups * Ceil(p.N, kHopperRows);
  if (WideTiles(row_tiles, p.K, ctx)) {
    Start(GradientTiles<kWide>{p, rows_of_part}, row_tiles * Ceil(p.K, kWide), ctx);
  } else {
    Start(GradientTiles<kNarrow>{p, rows_of_part}, row_tiles * Ceil(p.K, kNarrow), ctx);
  }
}

template <class Y>
bool Suits(const Product<BF16, Y>& p, Context& ctx) {
  return Suits(p.num_groups, p.num_rows, p.inputs, p.columns, ctx) && p.w_stride % 8 == 0 &&
         Aligned(p.x) && Aligned(p.w);
}

template <bool kTransposed, class Y, class Result>
void StartProduct(const Product<BF16, Y>& p, const Result& result, Context& ctx) {
  const int64_t row_tiles = p.num_rows / kHopperRows + p.num_groups;  // at most
  if (WideTiles(row_tiles, p.columns, ctx)) {
    Start(ProductTiles<kWide, kTransposed, Y, Result>{p, result},
          row_tiles * Ceil(p.columns, kWide), ctx);
  } else {
    Start(ProductTiles<kNarrow, kTransposed, Y, Result>{p, result},
          row_tiles * Ceil(p.columns, kNarrow), ctx);
  }
}

}  // namespace

template <class Y>
bool MultiplyOnHopper(const Product<BF16, Y>& p, bool transposed, Context& ctx) {
  if (!Suits(p, ctx) || !Aligned(p.y) || !Aligned(p.gate) || !Aligned(p.h)) return false;
  const StoreY<Y> store = {p.y, p.y_stride, p.accumulate};
  if constexpr (std::is_same_v<Y, BF16>) {
    if (p.h != nullptr) {
      CHECK(!transposed) << "h of w^T x";
      StartProduct<false>(p, StoreSwiGlu{store, p.gate, p.h}, ctx);
      return true;
    }
  }
  transposed ? StartProduct<true>(p, store, ctx) : StartProduct<false>(p, store, ctx);
  return true;
}
template bool MultiplyOnHopper(const Product<BF16, float>&, bool, Context&);
template bool MultiplyOnHopper(const Product<BF16, BF16>&, bool, Context&);

bool SwiGluGradientOnHopper(const Product<BF16, float>& p,
                            const kernels::LinearSwiGluGradientArgs& args, Context& ctx) {
  if (!Suits(p, ctx)) return false;
  for (const Tensor* x : {&args.gate, &args.up, &args.dgate, &args.dup, &args.h}) {
    if (!Aligned(x->device_data<BF16>())) return false;
  }
  StoreSwiGluGradient store = {.gate = args.gate.device_data<BF16>(),
                               .up = args.up.device_data<BF16>(),
                               .weights = args.weights.device_data<float>(),
                               .dgate = args.dgate.device_data<BF16>(),
                               .dup = args.dup.device_data<BF16>(),
                               .h = args.h.device_data<BF16>(),
                               .parts = nullptr,
                               .stride = p.y_stride,
                               .num_parts = Ceil(p.columns, StoreSwiGluGradient::kPart)};
  if (!args.dweights.defined()) {
    StartProduct<true>(p, store, ctx);
    return true;
  }
  const Tensor parts = ctx.Empty(DType::kF32, {p.num_rows, store.num_parts}, "linear.scratch");
  store.parts = parts.device_data<float>();
  StartProduct<true>(p, store, ctx);
  Launch(SumRowsKernel, ForElements(p.num_rows), ctx, store.parts, store.num_parts,
         args.dweights.device_data<float>(), p.num_rows,
         p.offsets == nullptr ? nullptr : p.offsets + p.num_groups);
  return true;
}

bool AddGradientOnHopper(const WeightGradient<BF16>& p, Context& ctx) {
  if (!Suits(p.num_groups, p.num_rows, p.N, p.K, ctx) || !Aligned(p.dy) || !Aligned(p.x) ||
      !Aligned(p.dw)) {
    return false;
  }
  const int64_t parts = NumParts(p, ctx);
  if (parts == 1) {
    StartGradient(p, static_cast<int>(p.num_rows), ctx);
    return true;
  }
  const Tensor sums = ctx.Empty(DType::kF32, {parts, p.N, p.K}, "linear.scratch");
  WeightGradient<BF16> of_parts = p;
  of_parts.num_groups = parts, of_parts.dw = sums.device_data<float>(), of_parts.accumulate = false;
  StartGradient(of_parts, static_cast<int>(Ceil(p.num_rows, parts)), ctx);
  Launch(SumPartsKernel, ForElements(p.N * p.K), ctx, sums.device_data<float>(), parts, p.dw,
         p.N * p.K, p.accumulate);
  return true;
}

}  // namespace moebius::cuda
