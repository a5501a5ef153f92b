#include "kernels/cuda/cuda.h"

#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace moebius::cuda {

const kernels::Backend kBackend = {
    .name = "cuda", .add = Add, .cast = Cast, .scale = Scale, .sum_of_squares = SumOfSquares};

}  // namespace moebius::cuda
