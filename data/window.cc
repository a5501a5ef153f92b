#include "data/window.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"

namespace moebius {

Sample ReadWindow(const Shard& shard, int64_t begin, int64_t sequence_length) {
  CHECK(0 <= begin && begin < shard.num_tokens()) << begin << " of " << shard.num_tokens();
  const int64_t S = sequence_length;
  const int64_t valid = std::min(S, shard.num_tokens() - 1 - begin);
  std::vector<int32_t> stretch(std::min(S + 1, shard.num_tokens() - begin));
  shard.Read(begin, stretch);

  Sample sample{.tokens = std::vector<int32_t>(S, 0),
                .labels = std::vector<int32_t>(S, 0),
                .document_ids = std::vector<int32_t>(S, -1),
                .positions = std::vector<int32_t>(S),
                .loss_weights = std::vector<float>(S, 0.0f)};
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  const auto begins = shard.document_begins();
  auto next = std::ranges::upper_bound(begins, begin);  // the first document that begins later
  int32_t document = 0;
  for (int64_t s = 0; s < valid; ++s) {
    for (; next != begins.end() && *next == begin + s; ++next) document += s > 0;
    sample.tokens[s] = stretch[s];
    sample.labels[s] = stretch[s + 1];
    sample.document_ids[s] = document;
    sample.loss_weights[s] = 1.0f;
  }
  return sample;
}

}  // namespace moebius
