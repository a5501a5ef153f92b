#!/bin/bash
# emulated_test.sh PLUGIN TEST: the test, on the GPU that the plugin plays.
set -euo pipefail
MOEBIUS_TEST_CUDA_PLUGIN=$PWD/$1 exec "$2"
