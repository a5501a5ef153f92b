#include "tests/parity/cells.h"

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "train/pipeline_layout.h"

namespace moebius {
namespace {

constexpr int kDrawsPerCell = 40;  // of which the one with most new pairs is taken
constexpr int kReferenceMicroBatch = 6;
constexpr char kOfMicroBatches[] = "micro_batch";  // a loss that belongs to a micro-batch size

struct Choice {
  std::string name;
  Overrides overrides;
};

struct Option {
  enum class Of { kRanks, kMicroBatch, kLayout, kTrained } of;
  std::string name;
  std::vector<Choice> choices;
};

Option Numbers(Option::Of of, const std::string& name, const std::string& path,
               const std::vector<int>& numbers) {
  Option option{of, name, {}};
  for (const int n : numbers) {
    option.choices.push_back({absl::StrCat(n), {absl::StrCat(path, "=", n)}});
  }
  return option;
}

std::string Balance(const std::string& text) { return "model.moe.balance={" + text + "}"; }

Overrides Pipeline(int stages, const std::string& schedule, int chunks) {
  return {absl::StrCat("parallel.pipeline_size=", stages),
          absl::StrCat("parallel.pipeline_schedule=", schedule),
          absl::StrCat("parallel.virtual_pipeline_size=", chunks)};
}

const std::vector<Option>& Options() {
  using enum Option::Of;
  static const std::vector<Option> options = {
      {kRanks, "ranks", {{"1", {}}, {"2", {}}, {"3", {}}, {"4", {}}, {"6", {}}, {"8", {}}}},
      Numbers(kLayout, "tensor", "parallel.tensor_size", {1, 2, 4}),
      Numbers(kLayout, "context", "parallel.context_size", {1, 2, 3}),
      Numbers(kLayout, "expert", "parallel.expert_size", {1, 2, 4, 8}),
      Numbers(kLayout, "expert_tensor", "parallel.expert_tensor_size", {1, 2}),
      {kLayout,
       "dispatcher",
       {{"all_to_all", {}}, {"all_gather", {"parallel.dispatcher=ALL_GATHER"}}}},
      Numbers(kLayout, "zero", "parallel.zero_stage", {0, 1, 2, 3}),
      {kLayout,
       "pipeline",
       {{"1", {}},
        {"2 GPipe", Pipeline(2, "GPIPE", 1)},
        {"2 1F1B", Pipeline(2, "ONE_F_ONE_B", 1)},
        {"3 1F1B", Pipeline(3, "ONE_F_ONE_B", 1)},
        {"4 1F1B", Pipeline(4, "ONE_F_ONE_B", 1)},
        {"2 x 2 interleaved", Pipeline(2, "INTERLEAVED", 2)},
        {"2 ZB-H1", Pipeline(2, "ZB_H1", 1)},
        {"4 ZB-H1", Pipeline(4, "ZB_H1", 1)},
        {"2 ZB-V", Pipeline(2, "ZB_V", 2)}}},
      {kLayout,
       "recompute",
       {{"none", {}},
        {"selective", {"parallel.recompute=SELECTIVE"}},
        {"full", {"parallel.recompute=FULL"}}}},
      {kMicroBatch, "micro_batch", {{"1", {}}, {"2", {}}, {"3", {}}, {"6", {}}}},
      {kTrained,
       "routing",
       {{"learned", {}},
        {"random", {"model.moe.debug_routing=RANDOM"}},
        {"all_to_one", {"model.moe.debug_routing=ALL_TO_ONE"}},
        {"some_empty", {"model.moe.debug_routing=SOME_EMPTY"}}}},
      {kTrained,
       "balance",
       {{"global", {}},
        {"exact", {Balance("loss { weight: 0.05 } global_counts: EXACT")}},
        {"sequence", {Balance("loss { scope: SEQUENCE weight: 0.05 } z_loss_weight: 0.01")}},
        {kOfMicroBatches, {Balance("loss { scope: MICRO_BATCH weight: 0.05 }")}},
        {"bias", {Balance("loss { weight: 0.01 } bias_update_rate: 0.01 z_loss_weight: 0.01")}}}},
      {kTrained,
       "model",
       {{"tiny", {}},
        // At the recipe's learning rate the gradient norm of this model magnifies rounding.
        {"tied",
         {"model.num_layers=4", "model.tie_embeddings=true", "model.qk_norm=PER_HEAD",
          "optimizer.peak_lr=0.001"}},
        {"mixed",
         {"model.num_layers=5", "model.moe.layers=[0, 3]", "model.ffn_hidden_size=48",
          "model.moe.router={score: SIGMOID scale: 1.5}"}}}}};
  return options;
}

// What every cell trains: small, and long enough to be cut many ways.
const Overrides kCommon = {"train.sequence_length=48", "train.global_batch_size=12"};

using Draw = std::vector<int>;                // a choice for each option
using Pair = std::tuple<int, int, int, int>;  // option, choice, option, choice

std::set<Pair> PairsOf(const Draw& draw) {
  std::set<Pair> pairs;
  for (int a = 0; a < std::ssize(draw); ++a) {
    for (int b = a + 1; b < std::ssize(draw); ++b) pairs.insert({a, draw[a], b, draw[b]});
  }
  return pairs;
}

MatrixCell CellOf(const Draw& draw) {
  MatrixCell cell{.name = "", .trained = kCommon, .layout = {}, .reference = {}};
  bool depends_on_micro_batches = false;
  for (int i = 0; i < std::ssize(draw); ++i) {
    const Option& option = Options()[i];
    const Choice& choice = option.choices[draw[i]];
    absl::StrAppend(&cell.name, i > 0 ? " | " : "", choice.name);
    if (option.of == Option::Of::kRanks) cell.layout.ranks = std::stoi(choice.name);
    if (option.of == Option::Of::kMicroBatch) {
      cell.layout.micro_batch_size = std::stoi(choice.name);
    }
    depends_on_micro_batches |= choice.name == kOfMicroBatches;
    Overrides& overrides = option.of == Option::Of::kTrained ? cell.trained : cell.layout.more;
    overrides.insert(overrides.end(), choice.overrides.begin(), choice.overrides.end());
  }
  cell.reference.micro_batch_size =
      depends_on_micro_batches ? cell.layout.micro_batch_size : kReferenceMicroBatch;
  return cell;
}

bool IsLegal(const MatrixCell& cell) {
  Overrides overrides = cell.trained;
  overrides.insert(overrides.end(), cell.layout.more.begin(), cell.layout.more.end());
  overrides.push_back(absl::StrCat("train.micro_batch_size=", cell.layout.micro_batch_size));
  const auto config = LoadRunConfig("configs/recipes/tiny.textproto", overrides);
  return config.ok() && ValidateLayout(*config, cell.layout.ranks).ok() &&
         CheckPipeline(*config, cell.layout.ranks).ok();
}

// Draws, one after the other.
class Drawer {
 public:
  explicit Drawer(uint64_t seed) : stream_(seed, "cells") {}

  Draw Any() {
    Draw draw;
    for (const Option& option : Options()) {
      draw.push_back(static_cast<int>(stream_.Below(next_++, option.choices.size())));
    }
    return draw;
  }

  Draw Legal() {
    for (;;) {
      const Draw draw = Any();
      const auto [known, is_new] = legal_.try_emplace(draw, false);
      if (is_new) known->second = IsLegal(CellOf(draw));
      if (known->second) return draw;
    }
  }

 private:
  const RandomStream stream_;
  uint64_t next_ = 0;
  std::map<Draw, bool> legal_;
};

int CountNew(const std::set<Pair>& pairs, const std::set<Pair>& seen) {
  int count = 0;
  for (const Pair& pair : pairs) count += !seen.contains(pair);
  return count;
}

}  // namespace

std::string CellHeader() {
  std::string header, rule;
  for (const Option& option : Options()) {
    absl::StrAppend(&header, "| ", option.name, " ");
    absl::StrAppend(&rule, "| --- ");
  }
  return absl::StrCat(header, "| curve | state | moved pairs |\n", rule, "| --- | --- | --- |");
}

std::vector<MatrixCell> DrawCells(int count, uint64_t seed) {
  Drawer drawer(seed);
  std::set<Draw> taken;
  std::set<Pair> seen;
  std::vector<MatrixCell> cells;
  while (std::ssize(cells) < count) {
    Draw best;
    int most = -1;
    for (int i = 0; i < kDrawsPerCell; ++i) {
      const Draw draw = drawer.Legal();
      const int fresh = taken.contains(draw) ? -1 : CountNew(PairsOf(draw), seen);
      if (fresh > most) std::tie(best, most) = std::tuple(draw, fresh);
    }
    if (most < 0) continue;
    taken.insert(best);
    seen.merge(PairsOf(best));
    cells.push_back(CellOf(best));
  }
  return cells;
}

std::vector<Layout> DrawLayouts(const Overrides& trained, int count, uint64_t seed) {
  Drawer drawer(seed);
  std::vector<Layout> layouts;
  while (std::ssize(layouts) < count) {
    MatrixCell cell = CellOf(drawer.Any());
    cell.trained = trained;
    if (IsLegal(cell)) layouts.push_back(cell.layout);
  }
  return layouts;
}

}  // namespace moebius
