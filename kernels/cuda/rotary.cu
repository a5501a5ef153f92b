// Limited by bandwidth: every element is read and written once; a turn serves all heads of a token.
#include <cmath>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"

namespace moebius::cuda {
namespace {

// Of H heads of 2 * `half` elements in each of T tokens.
struct Turns {
  int64_t T, H, half;
  double log2_theta;
  bool inverse, accumulate;
};

// A thread turns one pair of a token's elements in every head.
template <class T>
__global__ void RotaryKernel(const T* x, const int32_t* positions, Turns turns, T* y) {
  const int64_t half = turns.half, width = turns.H * 2 * half;
  for (int64_t index = FirstIndex(); index < turns.T * half; index += IndexStride()) {
    const int64_t t = index / half, i = index % half;
    const double exponent = -static_cast<double>(i) / static_cast<double>(half);
    const double angle = positions[t] * exp2(exponent * turns.log2_theta);
    const float cosine = static_cast<float>(cos(angle));
    const float sine = static_cast<float>(turns.inverse ? -sin(angle) : sin(angle));
    for (int64_t at = t * width + i; at < (t + 1) * width; at += 2 * half) {
      const float a = Get(x[at]), b = Get(x[at + half]);
      Put(y[at], a * cosine - b * sine, turns.accumulate);
      Put(y[at + half], b * cosine + a * sine, turns.accumulate);
    }
  }
}

}  // namespace

void Rotary(const kernels::RotaryArgs& args, Context& ctx) {
  const auto [T, W] = Dims<2>(args.x);
  const Turns turns = {.T = T,
                       .H = W / args.head_dim,
                       .half = args.head_dim / 2,
                       .log2_theta = std::log2(args.theta),
                       .inverse = args.inverse,
                       .accumulate = args.accumulate};
  WithType(args.x.dtype(), [&]<class Element>(Element) {
    Launch(RotaryKernel<Element>, ForElements(turns.T * turns.half), ctx,
           args.x.device_data<Element>(), args.positions.device_data<int32_t>(), turns,
           args.y.device_data<Element>());
  });
}

}  // namespace moebius::cuda
