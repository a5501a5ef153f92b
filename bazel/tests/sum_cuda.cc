// The border of the CUDA plugin: what a plugin exports stands in its own sources.

#include "bazel/tests/sum_cuda.h"

extern "C" int Sum(int a, int b) { return SumOnDevice(a, b); }
