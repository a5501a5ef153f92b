#!/bin/bash
# install_deps.sh: installs the Debian packages that building, testing and the set-up scripts need.
# Asks dpkg first, so that it neither needs rights nor changes anything when all are there.
set -euo pipefail

packages=(
  # the build
  bazel-bootstrap g++ pkg-config git ca-certificates python3
  # libraries
  libabsl-dev libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc
  libopenmpi-dev openmpi-bin libsentencepiece-dev
  libzstd-dev zlib1g-dev libxxhash-dev libisal-dev
  nlohmann-json3-dev libcli11-dev libjs-chart.js
  # tests and checks
  libgtest-dev libgmock-dev libbenchmark-dev libdnnl-dev clang-format clang-tidy shellcheck
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} == 0 ]]; then
  echo "install_deps: all ${#packages[@]} packages are installed"
  exit 0
fi

echo "install_deps: installing ${missing[*]}"
as_root=()
if [[ $(id -u) != 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install_deps: these packages are missing, and installing them needs root or sudo. As root, run:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"

# A Bazel server that is already running has looked for the libraries and remembers what it found.
if [[ -e "$(dirname "${BASH_SOURCE[0]}")/../../bazel-out" ]]; then
  (cd "$(dirname "${BASH_SOURCE[0]}")/../.." && bazel shutdown)
fi
