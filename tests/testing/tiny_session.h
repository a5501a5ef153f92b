// Sessions of configs/recipes/tiny.textproto on its own data, small enough for unit tests.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "train/session.h"

namespace moebius {

// The recipe in FP64 with steps of 4 sequences of 8 tokens, one a micro-batch; then `overrides`,
// "path=value".
RunConfig TinyConfig(const std::vector<std::string>& overrides);

// Calls body on `ranks` threads at once, each with its session, on the test's device
// (device_context.h) and with these options else.
void OnTinySessions(int ranks, const RunConfig& config,
                    const std::function<void(Session& session)>& body,
                    const Context::Options& options = {});

// All that training changes: parameters, buffers and moments.
std::vector<std::vector<std::byte>> StateOf(Transformer& model, AdamW& optimizer);

}  // namespace moebius
