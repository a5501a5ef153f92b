// Limited by bandwidth: every operand is read once, but for what a second look finds in caches.
#include <algorithm>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// Of R segments of C elements: their width, or that of the whole rows of which they are a part,
// and then the sums of those.
struct Segments {
  int64_t R, C;
  float width, epsilon;
  const double *squares, *products;  // null: segments are whole
};

Segments SegmentsOf(const Tensor& x, int64_t C, double epsilon, const kernels::WholeRows& whole) {
  return {.R = x.size() / C,
          .C = C,
          .width = static_cast<float>(whole.width > 0 ? whole.width : C),
          .epsilon = static_cast<float>(epsilon),
          .squares = whole.squares.device_data<double>(),
          .products = whole.products.device_data<double>()};
}

// Sum of a * b * w over a segment, in all lanes of the calling warp; w may be null: ones.
template <class Sum, class T>
__device__ Sum Product(const T* a, const T* b, const float* w, int64_t C) {
  Sum sum = 0;
  for (int64_t c = LaneIndex(); c < C; c += kWarp) {
    sum += static_cast<Sum>(Get(a[c])) * Get(b[c]) * (w == nullptr ? 1.0f : w[c]);
  }
  return WarpSum(sum);
}

// Of segment r, which is x. All lanes call.
template <class T>
__device__ float ReciprocalRms(const T* x, const Segments& segments, int64_t r) {
  const float sum = segments.squares == nullptr ? Product<float>(x, x, nullptr, segments.C)
                                                : static_cast<float>(segments.squares[r]);
  return 1.0f / sqrtf(sum / segments.width + segments.epsilon);
}

// These have a warp for each segment.

template <class T>
__global__ void NormalizeKernel(const T* x, const float* w, Segments segments, T* y) {
  const int64_t r = WarpIndex(), C = segments.C;
  if (r >= segments.R) return;
  x += r * C, y += r * C;
  const float rstd = ReciprocalRms(x, segments, r);
  for (int64_t c = LaneIndex(); c < C; c += kWarp) Put(y[c], Get(x[c]) * rstd * w[c]);
}

template <class T>
__global__ void RowProductsKernel(const T* a, const T* b, const float* w, double* sums, int64_t R,
                                  int64_t C) {
  const int64_t r = WarpIndex();
  if (r >= R) return;
  const double sum = Product<double>(a + r * C, b + r * C, w, C);
  if (LaneIndex() == 0) sums[r] = sum;
}

template <class T>
__global__ void InputGradientKernel(const T* dy, const T* x, const float* w, Segments segments,
                                    T* dx, bool accumulate) {
  const int64_t r = WarpIndex(), C = segments.C;
  if (r >= segments.R) return;
  dy += r * C, x += r * C, dx += r * C;
  const float rstd = ReciprocalRms(x, segments, r);
  const float inner = segments.products == nullptr ? Product<float>(dy, x, w, C)
                                                   : static_cast<float>(segments.products[r]);
  const float along_x = inner * rstd * rstd / segments.width;
  for (int64_t c = LaneIndex(); c < C; c += kWarp) {
    Put(dx[c], rstd * (Get(dy[c]) * w[c] - Get(x[c]) * along_x), accumulate);
  }
}

template <class T>
__global__ void ReciprocalRmsKernel(const T* x, Segments segments, float* rstd) {
  const int64_t r = WarpIndex();
  if (r >= segments.R) return;
  const float value = ReciprocalRms(x + r * segments.C, segments, r);
  if (LaneIndex() == 0) rstd[r] = value;
}

// The weight gradient is a sum over segments: over those of a part first, then over parts. A block
// takes a strip of as many columns as a warp has lanes; its warps share the part out.
constexpr int kStripThreads = 256, kStripWarps = kStripThreads / kWarp;
constexpr int64_t kMaxParts = 256;
constexpr int64_t kMinPart = 32;  // segments

int64_t StripsOf(int64_t C) { return (C + kWarp - 1) / kWarp; }

// Over the warps of a block, lane by lane. All threads call, once.
__device__ float SumOfWarps(float x) {
  __shared__ float of_warp[kStripWarps][kWarp];
  of_warp[threadIdx.x / kWarp][LaneIndex()] = x;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < kStripWarps; ++warp) sum += of_warp[warp][LaneIndex()];
  return sum;
}

template <class T>
__global__ void PartsKernel(const T* dy, const T* x, const float* rstd, int64_t R, int64_t C,
                            int64_t part_size, float* parts) {
  const int64_t strips = (C + kWarp - 1) / kWarp;
  const int64_t part = blockIdx.x / strips, c = blockIdx.x % strips * kWarp + LaneIndex();
  const int64_t begin = part * part_size, end = min(R, begin + part_size);
  const bool is_column = c < C;
  float sum = 0;
  for (int64_t r = begin + threadIdx.x / kWarp; is_column && r < end; r += kStripWarps) {
    sum += Get(dy[r * C + c]) * Get(x[r * C + c]) * rstd[r];
  }
  sum = SumOfWarps(sum);
  if (is_column && threadIdx.x < kWarp) parts[part * C + c] = sum;
}

__global__ void SumOfPartsKernel(const float* parts, int64_t num_parts, int64_t C, float* dw,
                                 bool accumulate) {
  const int64_t c = int64_t{blockIdx.x} * kWarp + LaneIndex();
  const bool is_column = c < C;
  float sum = 0;
  for (int64_t part = threadIdx.x / kWarp; is_column && part < num_parts; part += kStripWarps) {
    sum += parts[part * C + c];
  }
  sum = SumOfWarps(sum);
  if (is_column && threadIdx.x < kWarp) Put(dw[c], sum, accumulate);
}

}  // namespace

void RmsNorm(const Tensor& x, const Tensor& w, double epsilon, const Tensor& y, Context& ctx,
             const kernels::WholeRows& whole) {
  const Segments segments = SegmentsOf(x, w.size(), epsilon, whole);
  WithType(x.dtype(), [&]<class T>(T) {
    Launch(NormalizeKernel<T>, WarpForEach(segments.R), ctx, x.device_data<T>(),
           w.device_data<float>(), segments, y.device_data<T>());
  });
}

void RowProducts(const kernels::RowProductsArgs& args, Context& ctx) {
  const auto [R, C] = Dims<2>(args.a);
  WithType(args.a.dtype(), [&, R = R, C = C]<class T>(T) {
    Launch(RowProductsKernel<T>, WarpForEach(R), ctx, args.a.device_data<T>(),
           args.b.device_data<T>(), args.w.device_data<float>(), args.sums.device_data<double>(), R,
           C);
  });
}

void RmsNormInputGradient(const kernels::RmsNormInputGradientArgs& args, Context& ctx) {
  const Segments segments = SegmentsOf(args.x, args.w.size(), args.epsilon, args.whole);
  WithType(args.x.dtype(), [&]<class T>(T) {
    Launch(InputGradientKernel<T>, WarpForEach(segments.R), ctx, args.dy.device_data<T>(),
           args.x.device_data<T>(), args.w.device_data<float>(), segments, args.dx.device_data<T>(),
           args.accumulate);
  });
}

void RmsNormWeightGradient(const kernels::RmsNormWeightGradientArgs& args, Context& ctx) {
  const int64_t C = args.dw.size();
  const Segments segments = SegmentsOf(args.x, C, args.epsilon, args.whole);
  const int64_t R = segments.R, part_size = std::max(kMinPart, (R + kMaxParts - 1) / kMaxParts);
  const int64_t num_parts = (R + part_size - 1) / part_size;
  const Tensor rstd = ctx.Empty(DType::kF32, {R}, "rms_norm.rstd");
  const Tensor parts = ctx.Empty(DType::kF32, {num_parts, C}, "rms_norm.partial");
  WithType(args.x.dtype(), [&]<class T>(T) {
    Launch(ReciprocalRmsKernel<T>, WarpForEach(R), ctx, args.x.device_data<T>(), segments,
           rstd.device_data<float>());
    Launch(PartsKernel<T>, BlockForEach(num_parts * StripsOf(C), kStripThreads), ctx,
           args.dy.device_data<T>(), args.x.device_data<T>(), rstd.device_data<float>(), R, C,
           part_size, parts.device_data<float>());
  });
  Launch(SumOfPartsKernel, BlockForEach(StripsOf(C), kStripThreads), ctx,
         parts.device_data<float>(), num_parts, C, args.dw.device_data<float>(), args.accumulate);
}

}  // namespace moebius::cuda
