#!/bin/bash
# quickstart.sh: from a bare Debian 12 to a trained mixture-of-experts model. Installs what is missing, builds, fetches
# real text in five domains, prepares it, trains on two ranks, and shows what came out. What is done already is not done
# again. The last line begins with "quickstart: ok".
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

config=configs/recipes/quickstart.textproto
run=runs/quickstart
text=.cache/corpora/quick5
moebius=bazel-bin/moebius

say() { printf '\n== %s\n' "$*"; }
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }
fetch_text() { data/corpora/fetch.sh quick5 "$text"; }

# held_out DOMAIN: the bits per byte of its newest evaluation.
held_out() { grep -E "\"domain\": ?\"$1\"" "$run/metrics.jsonl" | tail -n 1 | sed -E 's/.*"bits_per_byte": ?([0-9.e+-]+).*/\1/'; }

# gzip_bits FILE: the bits per byte of gzip -9.
gzip_bits() { gzip -9 -c "$1" | wc -c | awk -v size="$(stat -c %s "$1")" '{ printf "%.3f", 8 * $1 / size }'; }

say "packages"
bazel/tools/install_deps.sh

say "build"
bazel build -c opt //:moebius

say "text"
if ! fetch_text; then
  echo "quickstart: trying again with fresh package lists"
  as_root apt-get update -q
  fetch_text
fi

say "prepare: tokenizer and token shards"
"$moebius" prepare --config "$config"

say "train on two ranks"
bazel/mpirun.sh 2 "$moebius" train --config "$config"

say "report"
"$moebius" report "$run"

say "a sample"
"$moebius" generate --checkpoint "$run/checkpoints/$(cat "$run/checkpoints/LATEST")" --prompt "The " --max_tokens 80 \
  --temperature 0.8 --top_p 0.95

say "held-out text, bits per byte"
table=$(for file in "$run"/data/*.heldout.txt; do
  domain=$(basename "$file" .heldout.txt)
  echo "$domain $(held_out "$domain") $(gzip_bits "$file")"
done)
awk 'BEGIN { printf "%-10s %8s %8s\n", "domain", "moebius", "gzip -9" }
  { printf "%-10s %8.3f %8.3f\n", $1, $2, $3; ours += $2; gzips += $3 }
  END {
    ours /= NR; gzips /= NR
    printf "%-10s %8.3f %8.3f\n\n", "mean", ours, gzips
    if (ours >= gzips) { print "quickstart: failed: the model does not beat gzip -9"; exit 1 }
    printf "quickstart: ok: %.3f bits per byte on held-out text, gzip -9 takes %.3f\n", ours, gzips
  }' <<<"$table" | sed "s|^quickstart: ok.*|&; see $run/report.html|"
