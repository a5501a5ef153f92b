// What a model is fed: sequences of S tokens with what to predict at each.
#pragma once

#include <cstdint>
#include <vector>

namespace moebius {

// Padding, at the end of a sequence only, has loss weight 0 and document id -1.
struct Sample {
  std::vector<int32_t> tokens;        // [S]
  std::vector<int32_t> labels;        // [S]: the token that follows
  std::vector<int32_t> document_ids;  // [S]: from 0, rising where a document begins
  std::vector<int32_t> positions;     // [S]: 0 .. S - 1
  std::vector<float> loss_weights;    // [S]
  int domain = 0;                     // index into the list of domains
};

}  // namespace moebius
