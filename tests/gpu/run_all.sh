#!/bin/bash
# run_all.sh [TEST...]: on a machine with an NVIDIA GPU, in an unpacked archive of pack.sh: every test on the GPU, the sanitizers
# of CUDA over them where there are any, and the training curve of the GPU beside that of the CPU. A table at the end; exits
# with 1 if anything failed.
set -uo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" || exit
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export MOEBIUS_TEST_CUDA_PLUGIN=$PWD/libmoebius_cuda.so
mkdir -p logs
table=logs/table.txt
: >"$table"

# check NAME COMMAND...: runs it for at most two minutes and notes the result.
check() {
  local name=$1 begin status=ok
  shift
  begin=$(date +%s.%N)
  timeout 120 "$@" >"logs/$name.log" 2>&1 || status="FAILED ($?)"
  awk -v name="$name" -v status="$status" -v begin="$begin" -v end="$(date +%s.%N)" \
    'BEGIN { printf "%-60s %-12s %6.1f s\n", name, status, end - begin }' | tee -a "$table"
  [[ $status == ok ]] || tail -n 20 "logs/$name.log"
}

# curve DEVICE PRECISION: the losses of a short run.
curve() {
  ./moebius train --config configs/tiny.textproto --set run.dir="runs/$1_$2" --set data.dir=runs/data --set run.device="$1" \
    --set precision.compute="$2" --set train.log_interval_steps=1 >"logs/train_$1_$2.log" 2>&1 || return 1
  grep -oE '"loss": ?[0-9.e+-]+' "runs/$1_$2/metrics.jsonl" | grep -oE '[0-9.e+-]+$'
}

# same_curve PRECISION BOUND: the largest relative difference between both devices.
same_curve() {
  curve CPU "$1" >logs/cpu.txt && curve CUDA "$1" >logs/cuda.txt || return 1
  paste logs/cpu.txt logs/cuda.txt | awk -v bound="$2" '
    NF != 2 { print "the curves have not one length"; exit failed = 1 }
    { d = ($1 - $2) / $1; d = d < 0 ? -d : d; worst = d > worst ? d : worst }
    END {
      if (failed || NR == 0) exit 1
      printf "%d steps, worst relative difference %.3g (limit %g)\n", NR, worst, bound
      exit worst > bound
    }'
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv || true
mapfile -t tests < <(if (($# > 0)); then printf 'tests/%s\n' "$@"; else ls tests/*_test; fi)
for test in "${tests[@]}"; do check "$(basename "$test")" "$test"; done
if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
  for test in "${tests[@]}"; do
    for tool in memcheck racecheck; do
      check "$tool.$(basename "$test")" "$sanitizer" --tool "$tool" --error-exitcode 9 "$test"
    done
  done
else
  echo "compute-sanitizer is not here" | tee -a "$table"
fi
if (($# == 0)); then
  ./moebius prepare --config configs/tiny.textproto --set data.dir=runs/data >logs/prepare.log 2>&1
  export -f curve same_curve
  check curve.FP32 bash -c 'same_curve FP32 1e-4'
  check curve.BF16 bash -c 'same_curve BF16 2e-2'
  cat logs/curve.*.log
fi
echo
sort -k2 "$table"
! grep -q FAILED "$table"
