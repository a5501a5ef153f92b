// matrix --cells N --seed S: trains N drawn cells in FP64, each beside one rank, and prints how far
// they part. The last line is "cells=N failed=M worst=X". docs/parity.md shows what this prints.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "tests/parity/cells.h"

namespace moebius {
namespace {

const ParityCurve& OneRank(const MatrixCell& cell) {
  static std::map<std::pair<Overrides, int>, ParityCurve> trained;
  const auto [at, is_new] = trained.try_emplace({cell.trained, cell.reference.micro_batch_size});
  if (is_new) at->second = TrainOnThreads(cell.reference, cell.trained);
  return at->second;
}

int RunMatrix(int count, uint64_t seed) {
  std::printf("%s\n", CellHeader().c_str());
  int failed = 0;
  double worst = 0;
  for (MatrixCell& cell : DrawCells(count, seed)) {
    cell.trained.push_back("precision.compute=FP64");
    const Difference difference = Compare(OneRank(cell), TrainOnThreads(cell.layout, cell.trained));
    const bool passed = difference.Within(kDoubleTolerance);
    failed += !passed;
    worst = std::max({worst, difference.curve, difference.state});
    std::printf("| %s | %s |%s\n", cell.name.c_str(), difference.ToString().c_str(),
                passed ? "" : " FAILED");
    std::fflush(stdout);
  }
  std::printf("cells=%d failed=%d worst=%.1e\n", count, failed, worst);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  CLI::App app("Parity of layouts with one rank.", "matrix");
  int cells = 200;
  uint64_t seed = 1;
  app.add_option("--cells", cells, "how many")->check(CLI::Range(1, 10000));
  app.add_option("--seed", seed, "of the draw");
  CLI11_PARSE(app, argc, argv);
  return moebius::RunMatrix(cells, seed);
}
