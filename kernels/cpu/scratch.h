// Work over the pool's threads where every thread needs scratch memory.
#pragma once

#include <algorithm>
#include <atomic>

#include "core/tensor/context.h"

namespace moebius::cpu {

// Calls fn(i, scratch) for i in [0, count), each once, in any order on any thread. `scratch` holds
// `floats` uninitialised floats that no other call uses meanwhile.
template <class Fn>
void ForWithScratch(Context& context, int64_t count, int64_t floats, const char* name,
                    const Fn& fn) {
  constexpr int64_t kLine = 16;  // floats: scratches share no cache line
  if (count <= 0) return;
  const int64_t workers = std::min<int64_t>(context.pool().num_threads(), count);
  const int64_t stride = (floats + kLine - 1) / kLine * kLine;
  const Tensor scratch = context.Empty(DType::kF32, {workers, stride}, name);
  std::atomic<int64_t> next{0};
  context.pool().For(workers, [&](int64_t worker) {
    float* mine = scratch.data<float>() + worker * stride;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) fn(i, mine);
  });
}

}  // namespace moebius::cpu
