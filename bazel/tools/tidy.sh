#!/bin/bash
# tidy.sh [FILE...]: clang-tidy, by the list in .clang-tidy, over the C++ sources of the tree or the named ones (paths from
# the root). Builds first, because generated headers must be there. kernels/cpu is left out: it uses extensions of gcc that
# clang does not have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bazel build //...
bazel/tools/compdb.py
if (($# > 0)); then
  files=("$@")
else
  mapfile -t files < <(git ls-files '*.cc' ':!bazel/tests' ':!kernels/cpu')
fi
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p . --quiet
