// Where a benchmark computes: on the CPU, or on the GPU of the plugin beside the program. How it
// fills its tensors there, and how it takes the time of work that goes on behind the host's back.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/status.h"
#include "core/tensor/context.h"

namespace moebius {

// Completes `options` for the first GPU. NotFound: there is none, or no plugin; it says why.
absl::StatusOr<Context::Options> OnGpu(Context::Options options);

// Seconds of a call, the mean of `num_calls` in a row: on an accelerator from where it has nothing
// to do to where it has done all of them.
double SecondsPerCall(Context& context, int64_t num_calls, const std::function<void()>& call);

// Calls in a row of which the wait behind the last one is no part worth counting: 1 on the CPU,
// which has done its work when a call returns. An accelerator is called twice to find out, a slow
// one once.
int64_t CallsInARow(Context& context, const std::function<void()>& call);

// Normal numbers times `scale`, others for each name, the same ones again after some thousands.
Tensor NormalTensor(Context& context, DType dtype, const Shape& shape, const char* name,
                    double scale = 1);

// F32 or I32, [numbers].
Tensor TensorOf(Context& context, std::span<const float> numbers, const char* name);
Tensor TensorOf(Context& context, std::span<const int32_t> numbers, const char* name);

std::vector<double> NumbersOf(const Tensor& x, Context& context);  // F64

}  // namespace moebius
