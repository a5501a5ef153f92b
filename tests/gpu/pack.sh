#!/bin/bash
# pack.sh [ARCHIVE]: builds what a machine with a GPU runs, and packs it (default gpu_tests.tar.gz, below 50 MiB): the tests
# that run on any device, the program, the plugin, the benchmarks, and the libraries they need. There, without compiler or
# Bazel:
#   tar xzf gpu_tests.tar.gz && gpu_tests/run_all.sh
set -euo pipefail
archive=$(realpath -m "${1:-gpu_tests.tar.gz}")
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."

# A test that an emulated GPU runs is one that any device can run.
mapfile -t tests < <(bazel query 'filter("_test_cuda$", //...)' --output=label 2>/dev/null | sed 's/_cuda$//')
benchmarks=(layer ops step)
bazel build -c opt //:moebius //kernels/cuda:libmoebius_cuda.so //tests/parity:matrix "${benchmarks[@]/#///tests/bench:}" "${tests[@]}"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
to=$folder/gpu_tests
mkdir -p "$to"/{tests,lib,configs/recipes,bench}

# put FILE NAME: the file without its symbols, and the libraries beside those that every Linux has.
put() {
  strip -o "$to/$2" "$1"
  ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    grep -vE '/(ld-linux|libc|libm|libdl|librt|libpthread)[-.]' | xargs -r cp -Lnt "$to/lib" || true
}
put bazel-bin/moebius moebius
put bazel-bin/kernels/cuda/libmoebius_cuda.so libmoebius_cuda.so
for benchmark in "${benchmarks[@]}"; do put "bazel-bin/tests/bench/$benchmark" "$benchmark"; done
for test in "${tests[@]}"; do
  path=${test#//}
  put "bazel-bin/${path/://}" "tests/$(tr / . <<<"${path/:/.}")"
done
put bazel-bin/tests/parity/matrix tests/matrix
cp configs/recipes/{tiny,olmoe_1b_7b}.textproto configs/clusters/h200.textproto "$to/configs"
cp tests/bench/{peer_device,peer_model,summary}.py "$to/bench"
cp configs/recipes/tiny.textproto "$to/configs/recipes"
mkdir -p "$to/tests/fixtures"
cp -r tests/fixtures/corpus "$to/tests/fixtures"
cp tests/gpu/run_all.sh "$to"

tar czf "$archive" -C "$folder" gpu_tests
size=$(stat -c %s "$archive")
echo "pack: $archive, $((size >> 20)) MiB, ${#tests[@]} tests"
((size < 50 << 20)) || { echo "pack: not below 50 MiB" >&2; exit 1; }
