#include "parallel/device_reduction.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace moebius {
namespace {

// Sums go in pieces that need no more than this.
constexpr int64_t kScratchBytes = int64_t{32} << 20;

// Up to here, counted over what a rank gets, a sum is one round: everything to everyone.
constexpr int64_t kAtOnceBytes = 256 << 10;

// To and from every other rank; `part(r)` is what goes to it, `place(r)` what comes from it.
struct Part {
  std::byte* data;
  int64_t bytes;
};
void ExchangeAll(DeviceGroup& group, int rank, int size, const std::function<Part(int)>& part,
                 const std::function<Part(int)>& place) {
  std::vector<DeviceMessage> send, receive;
  for (int r = 0; r < size; ++r) {
    if (r == rank) continue;
    send.push_back({r, part(r).data, part(r).bytes});
    receive.push_back({r, place(r).data, place(r).bytes});
  }
  group.Exchange(send, receive);
}

}  // namespace

int64_t DeviceReduction::Piece(int64_t share) const {
  return std::min(share, std::max<int64_t>(64, kScratchBytes / size / SizeOf(dtype) / 64 * 64));
}

int64_t DeviceReduction::ScratchBytes(int64_t share) const {
  return std::max(size * Piece(share) * SizeOf(dtype), kAtOnceBytes + size * SizeOf(dtype));
}

void DeviceReduction::Combine(DeviceGroup& group, const std::byte* parts, int64_t stride,
                              int64_t count, std::byte* out) const {
  group.Combine({.parts = parts,
                 .num_parts = size,
                 .stride = stride,
                 .count = count,
                 .dtype = dtype,
                 .maximum = maximum,
                 .out = out,
                 .out_dtype = out_dtype});
}

void DeviceReduction::Scatter(DeviceGroup& group, const std::byte* all, int64_t share,
                              std::byte* out, std::byte* scratch) const {
  auto* const from = const_cast<std::byte*>(all);
  for (int64_t begin = 0; begin < share; begin += Piece(share)) {
    const int64_t n = std::min(Piece(share), share - begin), bytes = n * SizeOf(dtype);
    const auto part = [&](int r) {
      return Part{from + (r * share + begin) * SizeOf(dtype), bytes};
    };
    const auto place = [&](int r) { return Part{scratch + r * bytes, bytes}; };
    ExchangeAll(group, rank, size, part, place);
    group.Copy(part(rank).data, place(rank).data, bytes);
    Combine(group, scratch, bytes, n, out + begin * SizeOf(out_dtype));
  }
}

void DeviceReduction::All(DeviceGroup& group, std::byte* x, int64_t count,
                          std::byte* scratch) const {
  const int64_t element = SizeOf(dtype);
  if (size * count * element <= kAtOnceBytes) return AllAtOnce(group, x, count, scratch);
  const int64_t chunk = size * Piece(Share(count));
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t n = std::min(chunk, count - begin), share = Share(n);
    const auto part = [&](int r) {  // of this chunk; the last ones may be short or empty
      const int64_t first = std::min(n, r * share), end = std::min(n, first + share);
      return Part{x + (begin + first) * element, (end - first) * element};
    };
    const Part own = part(rank);
    const auto place = [&](int r) { return Part{scratch + r * own.bytes, own.bytes}; };
    ExchangeAll(group, rank, size, part, place);
    group.Copy(own.data, place(rank).data, own.bytes);
    Combine(group, scratch, own.bytes, own.bytes / element, own.data);
    ExchangeAll(
        group, rank, size, [&](int) { return own; }, part);
  }
}

void DeviceReduction::AllAtOnce(DeviceGroup& group, std::byte* x, int64_t count,
                                std::byte* scratch) const {
  const int64_t bytes = count * SizeOf(dtype);
  const auto place = [&](int r) { return Part{scratch + r * bytes, bytes}; };
  ExchangeAll(
      group, rank, size,
      [&](int) {
        return Part{x, bytes};
      },
      place);
  group.Copy(x, place(rank).data, bytes);
  Combine(group, scratch, bytes, count, x);
}

}  // namespace moebius
