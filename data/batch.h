// What a model is fed: sequences of S tokens with what to predict at each.
#pragma once

#include <cstdint>
#include <vector>

namespace moebius {

// Token s of sample i has the global token index i * S + s. Padding, at the end of a sample only,
// has loss weight 0 and document id -1.
struct Sample {
  std::vector<int32_t> tokens;        // [S]
  std::vector<int32_t> labels;        // [S]: the token that follows
  std::vector<int32_t> document_ids;  // [S]: from 0, up by one where a document begins; its
                                      // separator is the first token of a document
  std::vector<int32_t> positions;     // [S]: 0 .. S - 1. Rotary embeddings see differences only, so
                                      // documents need no restart.
  std::vector<float> loss_weights;    // [S]: 1
  int domain = 0;                     // index into the list of domains
};

}  // namespace moebius
