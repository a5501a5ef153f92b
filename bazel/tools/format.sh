#!/bin/bash
# format.sh [--check] [FILE...]: formats the C++ and CUDA sources of the tree, or the named ones. With --check it changes
# nothing, names what is not formatted and exits with 1.
set -euo pipefail

mode=(-i)
if [[ "${1-}" == --check ]]; then
  mode=(--dry-run -Werror)
  shift
fi
if (($# > 0)); then
  files=("$@")
else
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh')
fi
clang-format "${mode[@]}" "${files[@]}"
