// Held-out loss by domain.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "kernels/weight_images.h"
#include "model/transformer.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

struct DomainEvaluation {
  std::string domain;
  double loss = 0;           // mean cross-entropy in nats per token
  double bits_per_byte = 0;  // of the raw text
  int64_t tokens = 0;
  int64_t text_bytes = 0;
};

struct EvaluationOptions {
  int64_t sequence_length = 0;
  int64_t micro_batch_size = 1;
  // 0: all; else as many whole sequences as that holds, but at least one.
  int64_t max_tokens_per_domain = 0;
  bool attention_within_documents = true;
  PipelineSpec pipeline = {};  // that the model's chunks belong to
};

// Runs the model forward over the held-out text of each domain. All ranks call it together and get
// the same numbers. Cuts of a domain count the bytes in proportion to its tokens.
std::vector<DomainEvaluation> Evaluate(Transformer& model, WeightSource& weights,
                                       const Dataset& dataset, const EvaluationOptions& options,
                                       Mesh& mesh, Context& context);

}  // namespace moebius
