#!/bin/bash
# moebius convert on the fixtures: there and back by the command line, and its refusals.
set -euo pipefail

moebius=./moebius
fixtures=tests/golden/fixtures
out=$TEST_TMPDIR

fail() { echo "FAILED: $*"; exit 1; }

# Runs a command that must end with exit code 2 and say $1.
refuses() {
  local sentence=$1 code=0
  shift
  "$@" > "$out/refusal" 2>&1 || code=$?
  [[ $code -eq 2 ]] || fail "exit code $code of $*"
  grep -qF -- "$sentence" "$out/refusal" || { cat "$out/refusal"; fail "$* did not say: $sentence"; }
}

for fixture in qwen3_moe qwen3_moe_tied olmoe mixtral; do
  layout=${fixture%_tied}
  $moebius convert --from_hf $fixtures/$fixture --to "$out/$fixture"
  $moebius convert --from "$out/$fixture" --to_hf "$out/hf_$fixture" --layout "$layout"
  cmp $fixtures/$fixture/model.safetensors "$out/hf_$fixture/model.safetensors" ||
    fail "$fixture came back changed"
done

# A run stands for its newest checkpoint.
mkdir -p "$out/run/checkpoints"
mv "$out/olmoe" "$out/run/checkpoints/step-00000000"
$moebius convert --from "$out/run" --to_hf "$out/half" --layout olmoe --dtype BF16
grep -q '"torch_dtype": "bfloat16"' "$out/half/config.json" || fail "not in BF16"

refuses "the layout olmoe cannot express model.qk_norm" \
  $moebius convert --from "$out/mixtral" --to_hf "$out/x" --layout olmoe
refuses "$out/mixtral: exists already" \
  $moebius convert --from_hf $fixtures/mixtral --to "$out/mixtral"
refuses "hf_olmoe: holds no checkpoint" \
  $moebius convert --from "$out/hf_olmoe" --to_hf "$out/x" --layout olmoe
refuses "$out/nothing/config.json" $moebius convert --from_hf "$out/nothing" --to "$out/x"
refuses "--from requires --to_hf" $moebius convert --from "$out/mixtral" --layout mixtral
refuses "llama not in" $moebius convert --from "$out/mixtral" --to_hf "$out/x" --layout llama
[[ ! -e $out/x ]] || fail "a refusal left something behind"
