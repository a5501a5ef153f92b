// The data of configs/recipes/tiny.textproto, made from the fixture corpus.
#pragma once

#include "data/dataset.h"

namespace moebius {

// Prepared at the first call, once in a process, in a folder of the test's own. Thread-safe. The
// test has //configs:recipes and //tests/fixtures/corpus as data.
const Dataset& TinyDataset();

}  // namespace moebius
