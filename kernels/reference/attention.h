// Attention of kernels/attention.h in double precision, one query at a time, on F64 tensors.
#pragma once

#include "kernels/attention.h"

namespace moebius::reference {

void Attention(const kernels::AttentionArgs& args, Context& context);
void AttentionGradient(const kernels::AttentionGradientArgs& args, Context& context);

}  // namespace moebius::reference
