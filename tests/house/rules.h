#pragma once

// The rules of the house. Each takes the tree and returns one sentence for each place that breaks
// it, as "path:line: what is wrong, what is allowed"; an empty list means that the rule is kept.

#include <string>
#include <vector>

#include "tests/house/source_tree.h"

namespace moebius::house {

using Findings = std::vector<std::string>;

// Sources include lower floors and their own folder only (docs/architecture.md); generated protos
// never reach core/ and kernels/; includes are written from the root.
Findings CheckFloors(const SourceTree& tree);

// CUDA, NCCL, MPI, gRPC, oneDNN and SentencePiece are included only where they are at home.
Findings CheckLibraryHomes(const SourceTree& tree);

// Each field of each message in configs/ has a comment, above it or behind it.
Findings CheckProtoComments(const SourceTree& tree);

// A source has at most 400 lines. `exceptions` are lines "path  reason"; one that is not needed is
// a finding too.
Findings CheckFileSizes(const SourceTree& tree, const std::vector<std::string>& exceptions);

// Each top-level folder has a page of its own, README.md (docs/ is made of pages).
Findings CheckReadmesExist(const SourceTree& tree);

// A folder's page has at most 40 lines.
Findings CheckReadmeLengths(const SourceTree& tree);

// What is left to do names its owner: "TODO(name)".
Findings CheckTodos(const SourceTree& tree);

// No file knows where it lies on somebody's machine.
Findings CheckMachinePaths(const SourceTree& tree);

// Python only where scripts are at home: corpora, golden numbers, benchmarks, build tools.
Findings CheckPythonHomes(const SourceTree& tree);

// Headers begin with #pragma once, before any other directive.
Findings CheckPragmaOnce(const SourceTree& tree);

}  // namespace moebius::house
