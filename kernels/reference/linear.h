// The products of kernels/linear.h in double precision, on F64 tensors. An image is the value
// itself.
#pragma once

#include "kernels/linear.h"

namespace moebius::reference {

void Linear(const kernels::LinearArgs& args, Context& context);
void LinearInputGradient(const kernels::LinearInputGradientArgs& args, Context& context);
void LinearWeightGradient(const kernels::LinearWeightGradientArgs& args, Context& context);
void LinearSwiGluGradient(const kernels::LinearSwiGluGradientArgs& args, Context& context);
void LinearSum(const kernels::LinearSumArgs& args, Context& context);

}  // namespace moebius::reference
