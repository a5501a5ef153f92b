#!/bin/bash
# test.sh [--full]: installs what is missing, builds everything and runs the tests; with --full also those tagged "slow".
# The last line counts the test targets: "N passed, N failed". Exits with 0 when everything built and passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1-}" in
  "") filter=(--test_tag_filters=-slow) ;;
  --full) filter=() ;;
  *) echo "usage: $0 [--full]" >&2; exit 2 ;;
esac

bazel/tools/install_deps.sh

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
bazel test //... --keep_going --color=no "${filter[@]}" 2>&1 | tee "$log" || status=$?

# Bazel's summary has one line a test: its label, then its result.
result='^//[^ ]+ +(\(cached\) )?'
passed=$(grep -cE "$result(PASSED|FLAKY)" "$log" || true)
failed=$(grep -cE "$result(FAILED|TIMEOUT|INCOMPLETE|NO STATUS|REMOTE FAILURE)" "$log" || true)
if [[ $status != 0 && $failed == 0 ]]; then
  echo "test: the build failed"
  failed=1
fi
echo "$passed passed, $failed failed"
exit "$((status != 0))"
