#include "data/window.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"

namespace moebius {
namespace {

// The first `valid` positions from `stretch`, which holds one token more; the rest is padding.
Sample MakeSample(std::span<const int32_t> stretch, int64_t valid, int64_t sequence_length) {
  const auto S = static_cast<size_t>(sequence_length);
  Sample sample;
  sample.tokens.assign(stretch.begin(), stretch.begin() + valid);
  sample.tokens.resize(S, 0);
  if (valid > 0) sample.labels.assign(stretch.begin() + 1, stretch.begin() + 1 + valid);
  sample.labels.resize(S, 0);
  sample.loss_weights.assign(static_cast<size_t>(valid), 1.0f);
  sample.loss_weights.resize(S, 0.0f);
  sample.document_ids.resize(S, -1);
  sample.positions.resize(S);
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  return sample;
}

// Numbers the documents of the `ids.size()` tokens from `begin` on, not beyond the shard's end, up
// from `document`. Returns the last number.
int32_t NumberDocuments(const Shard& shard, int64_t begin, int32_t document,
                        std::span<int32_t> ids) {
  const auto begins = shard.document_begins();
  auto next = std::ranges::upper_bound(begins, begin);
  for (size_t s = 0; s < ids.size(); ++s) {
    const int64_t token = begin + static_cast<int64_t>(s);
    if (token == *next) ++document;
    while (*next <= token) ++next;  // empty documents too
    ids[s] = document;
  }
  return document;
}

}  // namespace

Sample ReadWindow(const Shard& shard, int64_t begin, int64_t sequence_length) {
  CHECK(0 <= begin && begin < shard.num_tokens()) << begin << " of " << shard.num_tokens();
  std::vector<int32_t> stretch(
      static_cast<size_t>(std::min(sequence_length + 1, shard.num_tokens() - begin)));
  shard.Read(begin, stretch);
  const int64_t valid = std::ssize(stretch) - 1;
  Sample sample = MakeSample(stretch, valid, sequence_length);
  NumberDocuments(shard, begin, 0,
                  std::span(sample.document_ids).first(static_cast<size_t>(valid)));
  return sample;
}

Sample ReadRingWindow(const Shard& shard, int64_t begin, int64_t sequence_length) {
  CHECK(0 <= begin && begin < shard.num_tokens()) << begin << " of " << shard.num_tokens();
  CHECK_LT(sequence_length, shard.num_tokens()) << "tokens of the shard";
  std::vector<int32_t> stretch(static_cast<size_t>(sequence_length + 1));
  const auto before_end =
      static_cast<size_t>(std::min(sequence_length + 1, shard.num_tokens() - begin));
  shard.Read(begin, std::span(stretch).first(before_end));
  shard.Read(0, std::span(stretch).subspan(before_end));

  Sample sample = MakeSample(stretch, sequence_length, sequence_length);
  const std::span<int32_t> ids(sample.document_ids);
  const size_t head = std::min(before_end, ids.size());
  const int32_t last = NumberDocuments(shard, begin, 0, ids.first(head));
  if (head < ids.size()) NumberDocuments(shard, 0, last + 1, ids.subspan(head));
  return sample;
}

}  // namespace moebius
