#!/bin/bash
# Every shell script of the tree is clean under shellcheck.
set -euo pipefail

root=$(dirname "$(readlink -f WORKSPACE)")
cd "$root"

# is_script FILE: whether its first line names a shell.
is_script() { head -c 64 "$1" | head -n 1 | tr -d '\0' | grep -qE '^#!.*\b(ba)?sh\b'; }

scripts=()
while IFS= read -r -d '' file; do
  if is_script "$file"; then scripts+=("$file"); fi
done < <(find . -path './bazel-*' -prune -o -path ./.git -prune -o -path ./.cache -prune -o -path ./runs -prune \
  -o -type f -size -64k \( -name '*.sh' -o ! -name '*.*' -o -path './.ci/*' \) -print0)

if ((${#scripts[@]} < 5)); then
  echo "shellcheck_test: only ${#scripts[@]} scripts below $root: they are searched for in the wrong place"
  exit 1
fi
# --external-sources: a script may be checked together with those that it sources.
shellcheck --external-sources "${scripts[@]}" || {
  echo "shellcheck_test: see the findings above"
  exit 1
}

# The check itself: a script with an unquoted variable must be found.
bad=$TEST_TMPDIR/bad.sh
# shellcheck disable=SC2016 # the variable is meant for the bad script
printf '#!/bin/bash\nrm $1\n' >"$bad"
if ! is_script "$bad" || shellcheck "$bad" >/dev/null; then
  echo "shellcheck_test: shellcheck did not find an unquoted variable in $bad"
  exit 1
fi
