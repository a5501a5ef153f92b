// matrix --cells N --seed S --precision P --device D: trains N drawn cells, each beside one rank,
// and prints how far they part. The last line is "cells=N failed=M worst=X": X is the largest
// relative difference (BF16: ratio) of any cell. docs/parity.md shows what this prints.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/parity/cell_checks.h"
#include "tests/parity/cells.h"

namespace moebius {
namespace {

// From so many on, cells have every pair of choices that is legal.
constexpr int kCoveringCells = 200;

struct MatrixOptions {
  int cells = kCoveringCells;
  uint64_t seed = 1;
  std::string precision = "FP64";
  std::string device = "CPU";
  int jobs = static_cast<int>(std::thread::hardware_concurrency()) / 2 + 1;
  std::string markdown;
  Overrides overrides;
};

const CellCheck& CheckOf(const std::string& precision) {
  return precision == "FP64" ? kDoubleCheck : precision == "FP32" ? kSingleCheck : kBrainCheck;
}

// A table, printed row by row, and kept for a file.
class Report {
 public:
  void Add(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
    text_ += line + "\n";
  }
  // Under `bazel run` a relative path is one of the folder that it was called in.
  bool Write(const std::string& file) const {
    if (file.empty()) return true;
    const char* folder = std::getenv("BUILD_WORKING_DIRECTORY");
    const auto path = std::filesystem::path(folder != nullptr ? folder : ".") / file;
    return (std::ofstream(path) << text_).flush().good();
  }

 private:
  std::string text_;
};

// Cells are independent: `jobs` are trained at a time, and those of one rank leave no core idle.
class Runner {
 public:
  Runner(const std::vector<MatrixCell>& cells, const CellCheck& check, int jobs)
      : results_(cells.size()) {
    for (int i = 0; i < jobs; ++i) {
      threads_.emplace_back([this, &cells, &check] {
        for (size_t next; (next = next_++) < cells.size();) {
          results_[next].set_value(check.run(cells[next]));
        }
      });
    }
  }
  ~Runner() {
    for (std::thread& thread : threads_) thread.join();
  }

  CellResult Wait(size_t cell) { return results_[cell].get_future().get(); }

 private:
  std::vector<std::promise<CellResult>> results_;
  std::atomic<size_t> next_ = 0;
  std::vector<std::thread> threads_;
};

struct Outcome {
  int failed = 0;
  size_t worst_cell = 0;
  CellResult worst;
};

Outcome PrintRows(const std::vector<MatrixCell>& cells, Runner& runner, Report& report) {
  Outcome outcome;
  for (size_t i = 0; i < cells.size(); ++i) {
    const CellResult result = runner.Wait(i);
    report.Add(absl::StrFormat("| %s | %s |%s", cells[i].name, result.columns,
                               result.passed ? "" : " FAILED"));
    outcome.failed += !result.passed;
    const bool is_worst = i == 0 || !(result.worst <= outcome.worst.worst);  // NaN is
    if (is_worst) std::tie(outcome.worst_cell, outcome.worst) = std::tuple(i, result);
  }
  return outcome;
}

int RunMatrix(const MatrixOptions& options) {
  const CellCheck& check = CheckOf(options.precision);
  Coverage coverage;
  std::vector<MatrixCell> cells = DrawCells(options.cells, options.seed, &coverage);
  for (MatrixCell& cell : cells) {
    std::ranges::copy(options.overrides, std::back_inserter(cell.trained));
    cell.trained.push_back("run.device=" + options.device);
  }
  Report report;
  report.Add(CellHeader(check.columns));
  Runner runner(cells, check, options.jobs);
  const auto [failed, worst_cell, worst] = PrintRows(cells, runner, report);
  const bool covers = coverage.pairs == coverage.of_pairs || options.cells < kCoveringCells;
  report.Add(absl::StrFormat("\nWorst cell: %s: %s", cells[worst_cell].name, worst.columns));
  report.Add(absl::StrFormat("Pairs of choices: %d of the %d that are legal%s", coverage.pairs,
                             coverage.of_pairs, covers ? "" : " FAILED"));
  report.Add(absl::StrFormat("cells=%d failed=%d worst=%.3g", options.cells, failed, worst.worst));
  const bool written = report.Write(options.markdown);
  if (!written) std::fprintf(stderr, "--markdown: cannot write %s\n", options.markdown.c_str());
  return written && covers && failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) {
  CLI::App app("Parity of layouts with one rank.", "matrix");
  moebius::MatrixOptions options;
  app.add_option("--cells", options.cells, "how many")->check(CLI::Range(1, 10000));
  app.add_option("--seed", options.seed, "of the draw");
  app.add_option("--precision", options.precision, "what is computed in")
      ->check(CLI::IsMember({"FP64", "FP32", "BF16"}));
  app.add_option("--jobs", options.jobs, "cells trained at a time")->check(CLI::Range(1, 1000));
  app.add_option("--markdown", options.markdown, "file to write the table to");
  app.add_option("--device", options.device,
                 "CUDA: ranks share the GPU of the plugin that MOEBIUS_TEST_CUDA_PLUGIN names")
      ->check(CLI::IsMember({"CPU", "CUDA"}));
  app.add_option("--set", options.overrides, "override of what all cells train, path=value")
      ->allow_extra_args(false);
  CLI11_PARSE(app, argc, argv);
  if (options.device == "CUDA" && options.precision == "FP64") {
    std::fprintf(stderr, "--device: FP64 is computed by the CPU; use --precision FP32 or BF16\n");
    return 2;
  }
  return moebius::RunMatrix(options);
}
