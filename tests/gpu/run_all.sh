#!/bin/bash
# run_all.sh [--out FOLDER] [--seconds N] [--small] [PART...]: on a machine with an NVIDIA GPU, in an unpacked archive of
# pack.sh. The parts, in this order; all if none is named:
#   tests          every test of the kernels, on the GPU
#   curve          the losses of a short training run beside those of the CPU, FP32 and BF16
#   layer          layers of experts of Mixtral 8x7B, OLMoE-1B-7B and Qwen3-30B-A3B, even and skewed; 8 to 128 experts
#   peer_layer     the same in PyTorch
#   step           steps of OLMoE-1B-7B, replayed and kernel by kernel, its moments on the device and on the host, and what
#                  `moebius plan` predicts of them
#   peer_step      the same in PyTorch
#   ops            each op, BF16, beside cuBLAS
#   parity         drawn layouts whose ranks share the GPU, beside one rank on it, FP32 and BF16
#   peer_compiled  layer and step in PyTorch under torch.compile
#   sanitize       the tests under compute-sanitizer, where there is one
# What fails or takes too long stops nothing else; after N seconds (default 570) nothing more is begun. FOLDER (default
# results) has table.txt and results.tar.gz: JSON and logs, as of the last thing done. --small: tiny sizes, to see that all
# of it starts. At the end a table and a summary; exits with 1 if anything failed.
set -uo pipefail
out=$(realpath -m results) seconds=570 small=
all=(tests curve layer peer_layer step peer_step ops parity peer_compiled sanitize)
while [[ ${1:-} == --* ]]; do
  case $1 in
    --out) out=$(realpath -m "$2") && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --small) small=yes && shift ;;
    *) echo "run_all: $1 is no option" >&2 && exit 2 ;;
  esac
done
parts=("$@")
((${#parts[@]} > 0)) || parts=("${all[@]}")
for part in "${parts[@]}"; do
  [[ " ${all[*]} " == *" $part "* ]] || { echo "run_all: $part is none of ${all[*]}" >&2; exit 2; }
done
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" || exit
rm -rf json logs runs
mkdir -p json logs runs "$out"
table=$out/table.txt
: >"$table"

# PyTorch brings cuBLAS along. Our own libraries are for our own programs alone.
packages=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0] + "/..")' 2>logs/torch.log)
cublas=/usr/local/cuda/lib64:/usr/local/cuda/lib${packages:+:$packages/nvidia/cu13/lib}
ours=(env "LD_LIBRARY_PATH=$PWD/lib:$cublas" "MOEBIUS_TEST_CUDA_PLUGIN=$PWD/libmoebius_cuda.so" MOEBIUS_DEVICE=CUDA)
peer=(python3 -u bench/peer_device.py)

# check NAME SECONDS COMMAND...: runs it for so long at most and notes the result. Standard output goes to json/NAME.
check() {
  local name=$1 limit=$2 begin=$SECONDS status=ok left=$((seconds - SECONDS))
  shift 2
  if ((left < limit)); then limit=$left; fi
  if ((limit <= 0)); then
    status="NOT BEGUN"
  else
    timeout -k 5 "$limit" "$@" >"json/$name" 2>"logs/$name" || status="FAILED ($?)"
  fi
  printf '%-50s %-14s %4d s\n' "$name" "$status" $((SECONDS - begin)) | tee -a "$table"
  [[ $status == ok ]] || tail -qn 8 "logs/$name" "json/$name" 2>/dev/null
  tar czf "$out/results.tar.gz" json logs
  [[ $status == ok ]]
}

declare -A ops    # benchmarks by group
declare -A cells  # of the parity matrix, by precision
if [[ $small ]]; then
  [[ -e /dev/nvidia0 ]] || peer+=(--device cpu)
  shapes=(mixtral:64:96:8:2) growth=(8:32:32:8:8 16:32:32:16:8) tokens=64
  recipe=configs/tiny.textproto steps=(--steps 1 --warmup 2)
  ops=([memory]='^sum_of_squares/BF16')
  cells=([FP32]=1) trained=(--set train.num_steps=1 --set optimizer.warmup_steps=0)
  curve=(--set train.num_steps=2 --set optimizer.warmup_steps=0 --set train.eval_max_tokens_per_domain=32)
else
  cells=([FP32]=12 [BF16]=2) trained=()
  curve=() shapes=(mixtral:4096:14336:8:2 olmoe:2048:1024:64:8 qwen3:2048:768:128:8) tokens=32768
  growth=(8:2048:1024:8:8 16:2048:1024:16:8 32:2048:1024:32:8 128:2048:1024:128:8)
  recipe=configs/olmoe_1b_7b.textproto steps=(--steps 3 --warmup 2)
  ops=([products]='^(linear|cublas|pack)/.*BF16'
    [grouped]='^grouped/.*BF16'
    [attention]='^(attention|loss)/.*BF16'
    [memory]='^(copy|permute|combine|rms_norm|rotary|swiglu|add|embedding|sum_of_squares)[^/]*/BF16|^(top_k|build_plan|softmax|cross_entropy|adamw)')
fi
layer=(--tokens "$tokens" --rounds 5)

run_tests() {
  for test in tests/*_test; do check "$(basename "$test").txt" 60 "${ours[@]}" "$test"; done
}

# train DEVICE PRECISION: a short run, and its losses by step in runs/DEVICE_PRECISION.txt.
train() {
  check "train.$1.$2.txt" 60 "${ours[@]}" ./moebius train --config configs/tiny.textproto --set run.dir="runs/$1_$2" \
    --set data.dir=runs/data --set run.device="$1" --set precision.compute="$2" "${curve[@]}" || return
  grep -oE '"loss": ?[0-9.e+-]+' "runs/$1_$2/metrics.jsonl" | grep -oE '[0-9.e+-]+$' >"runs/$1_$2.txt"
}

run_curve() {
  local precision
  local -A bound=([FP32]=1e-4 [BF16]=2e-2)
  check prepare.txt 30 "${ours[@]}" ./moebius prepare --config configs/tiny.textproto --set data.dir=runs/data || return
  for precision in "${!bound[@]}"; do
    if ! train CPU "$precision" || ! train CUDA "$precision"; then continue; fi
    # shellcheck disable=SC2016  # what begins with $ is awk's
    check "curve.$precision.json" 5 awk -v bound="${bound[$precision]}" '
      NR == FNR { cpu[NR] = $1; next }
      { d = ($1 - cpu[FNR]) / cpu[FNR]; d = d < 0 ? -d : d; worst = d > worst ? d : worst; both = FNR }
      END {
        printf "{\"steps\": %d, \"worst_relative_difference\": %g, \"bound\": %g}\n", both, worst, bound
        exit both == 0 || both != length(cpu) || worst > bound
      }' "runs/CPU_$precision.txt" "runs/CUDA_$precision.txt"
  done
}

run_layer() {
  local shape
  for shape in "${shapes[@]}"; do
    check "layer.${shape%%:*}.json" 90 "${ours[@]}" ./layer --device cuda --shape "$shape" --skew 0 --skew 1 "${layer[@]}"
  done
  for shape in "${growth[@]}"; do
    check "growth.${shape%%:*}.json" 45 "${ours[@]}" ./layer --device cuda --shape "$shape" "${layer[@]}"
  done
}

run_peer_layer() {
  local arguments=(layer --skew 0 --skew 1 "${layer[@]}") shape
  check peer_check.json 60 "${peer[@]}" check
  for shape in "${shapes[@]}"; do arguments+=(--shape "$shape"); done
  check peer_layer.json 120 "${peer[@]}" "${arguments[@]}"
  arguments=(layer --ways grouped "${layer[@]}")
  for shape in "${growth[@]}"; do arguments+=(--shape "$shape"); done
  check peer_growth.json 60 "${peer[@]}" "${arguments[@]}"
}

run_step() {
  local step=("${ours[@]}" ./step --config "$recipe" --precision bf16 --set run.device=CUDA "${steps[@]}" -o json)
  local plan=("${ours[@]}" ./moebius plan --config "$recipe" --cluster configs/h200.textproto -o json)
  local on_host=(--set optimizer.moments_tier=HOST) fits=yes
  check plan.json 30 "${plan[@]}"
  check plan_host.json 30 "${plan[@]}" "${on_host[@]}"
  if ! check step.json 240 "${step[@]}"; then
    step+=(--set train.micro_batch_size=1 --set parallel.recompute=FULL)
    check step_recompute.json 200 "${step[@]}" || fits=
  fi
  [[ ! $fits ]] || check step_by_kernel.json 120 "${step[@]}" --set run.replays_steps=false
  check step_host.json 200 "${step[@]}" "${on_host[@]}"
}

run_peer_step() {
  local arguments=(step --recipe "$recipe" --ways "grouped,grouped_sum" --rounds 3)
  check peer_step.bf16.json 120 "${peer[@]}" "${arguments[@]}" --state bf16
  check peer_step.fp32.json 120 "${peer[@]}" "${arguments[@]}" --state fp32 --micro_batch 1
}

run_ops() {
  local group
  for group in "${!ops[@]}"; do
    check "ops.$group.json" 90 "${ours[@]}" ./ops --benchmark_filter="${ops[$group]}" --benchmark_min_time=0.05 --benchmark_format=json
  done
}

run_parity() {
  local precision
  for precision in "${!cells[@]}"; do
    check "parity.$precision.txt" 90 "${ours[@]}" tests/matrix --device CUDA --precision "$precision" --cells "${cells[$precision]}" "${trained[@]}"
    # shellcheck disable=SC2016  # what begins with $ is awk's
    check "parity.$precision.json" 5 awk -F '[= ]' -v precision="$precision" '
      /^cells=/ { printf "{\"precision\": \"%s\", \"cells\": %d, \"failed\": %d, \"worst\": %g}\n", precision, $2, $4, $6; all = $4 == 0 }
      END { exit !all }' "json/parity.$precision.txt"
  done
}

run_peer_compiled() {
  local arguments=(--compile --ways grouped --rounds 3) shape
  check peer_step_compiled.json 200 "${peer[@]}" step --recipe "$recipe" --state bf16 "${arguments[@]}"
  for shape in "${shapes[@]}"; do arguments+=(--shape "$shape"); done
  check peer_layer_compiled.json 120 "${peer[@]}" layer "${arguments[@]}" --tokens "$tokens"
}

run_sanitize() {
  local sanitizer test tool
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) ||
    { echo "compute-sanitizer is not here" | tee -a "$table"; return; }
  for tool in memcheck racecheck; do
    for test in tests/*_test; do
      check "$tool.$(basename "$test").txt" 120 "${ours[@]}" "$sanitizer" --tool "$tool" --error-exitcode 9 "$test"
    done
  done
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv 2>&1 | tee json/gpu.txt
for part in "${parts[@]}"; do "run_$part"; done
python3 bench/summary.py json 2>logs/summary.txt | tee "$out/summary.md"
tar czf "$out/results.tar.gz" json logs
echo
cat "$table"
! grep -qE 'FAILED|NOT BEGUN' "$table"
