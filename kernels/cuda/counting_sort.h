// Items in the order of their keys, those of one key in the order that they come in. Time and
// memory are linear in items, and in keys times chunks of items. For .cu sources alone.
//
//   struct Items {
//     __device__ int32_t Key(int64_t i) const;                // in [0, num_keys)
//     __device__ void Place(int64_t i, int32_t place) const;  // item i comes `place`th, from 0
//   };
//   PlaceItems(items, n, FirstPlaces(items, n, num_keys, ctx), ctx);
#pragma once

#include "kernels/cuda/device.h"

namespace moebius::cuda {

constexpr int64_t kSortChunk = 256;  // items that a warp places

// Each element of x, I32, becomes the sum of those before it.
void ExclusiveSums(const Tensor& x, Context& ctx);

template <class Items>
__global__ void CountKeysKernel(Items items, int64_t n, int64_t chunks, int32_t* counts) {
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    atomicAdd(&counts[items.Key(i) * chunks + i / kSortChunk], 1);
  }
}

// A warp for each chunk of items, in their order.
template <class Items>
__global__ void PlaceItemsKernel(Items items, int64_t n, int64_t chunks, int32_t* next) {
  const int64_t chunk = WarpIndex();
  if (chunk >= chunks) return;
  const int64_t end = min(n, (chunk + 1) * kSortChunk);
  for (int64_t first = chunk * kSortChunk; first < end; first += kWarp) {
    const int64_t i = first + LaneIndex();
    const int32_t key = i < end ? items.Key(i) : -1;
    const unsigned alike = __match_any_sync(0xFFFFFFFFu, key);
    const int before = __popc(alike & ((1u << LaneIndex()) - 1));
    if (key >= 0) items.Place(i, next[key * chunks + chunk] + before);
    __syncwarp();
    if (key >= 0 && before == 0) next[key * chunks + chunk] += __popc(alike);
    __syncwarp();
  }
}

// [num_keys, chunks]: the place of the first item of each key in each chunk of kSortChunk items, or
// where it would be. Counts by key and chunk, in that order, add up to them.
template <class Items>
Tensor FirstPlaces(const Items& items, int64_t n, int64_t num_keys, Context& ctx) {
  const int64_t chunks = std::max(int64_t{1}, (n + kSortChunk - 1) / kSortChunk);
  const Tensor places = ctx.Zeros(DType::kI32, {num_keys, chunks}, "sort.places");
  Launch(CountKeysKernel<Items>, ForElements(n), ctx, items, n, chunks,
         places.device_data<int32_t>());
  ExclusiveSums(places, ctx);
  return places;
}

// Once for each FirstPlaces, whose numbers it uses up.
template <class Items>
void PlaceItems(const Items& items, int64_t n, const Tensor& first_places, Context& ctx) {
  const int64_t chunks = first_places.shape()[1];
  Launch(PlaceItemsKernel<Items>, WarpForEach(chunks), ctx, items, n, chunks,
         first_places.device_data<int32_t>());
}

}  // namespace moebius::cuda
