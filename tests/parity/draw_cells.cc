#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "core/base/random.h"
#include "tests/parity/cell_options.h"
#include "tests/parity/cells.h"

namespace moebius {
namespace {

constexpr int kDrawsPerCell = 40;  // of which the one with most new pairs is taken

struct Pair {
  int option_a, choice_a, option_b, choice_b;
  auto operator<=>(const Pair&) const = default;
};

std::set<Pair> PairsOf(const Draw& draw) {
  std::set<Pair> pairs;
  for (int a = 0; a < std::ssize(draw); ++a) {
    for (int b = a + 1; b < std::ssize(draw); ++b) pairs.insert({a, draw[a], b, draw[b]});
  }
  return pairs;
}

// Every combination of the choices of `options` from `first` on; the others have their first.
template <class Fn>
void ForCombinations(const std::vector<int>& options, size_t first, Draw* draw, const Fn& fn) {
  if (first == options.size()) return fn(*draw);
  const int option = options[first];
  for (int c = 0; c < std::ssize(Options()[option].choices); ++c) {
    (*draw)[option] = c;
    ForCombinations(options, first + 1, draw, fn);
  }
  (*draw)[option] = 0;
}

// The options whose choices may contradict others.
std::vector<int> DecidingOptions() {
  std::vector<int> deciding;
  for (int i = 0; i < std::ssize(Options()); ++i) {
    if (Options()[i].decides) deciding.push_back(i);
  }
  return deciding;
}

// All legal combinations of them. Ranks come first, and their number is no part of a config.
std::vector<Draw> LegalCombinations() {
  CHECK(Options()[0].of == Option::Of::kRanks);
  std::vector<int> others = DecidingOptions();
  others.erase(others.begin());
  std::vector<Draw> legal;
  Draw draw(Options().size());
  ForCombinations(others, 0, &draw, [&](const Draw& others_of) {
    const absl::StatusOr<RunConfig> config = ConfigOf(CellOf(others_of));
    Draw with_ranks = others_of;
    for (int r = 0; r < std::ssize(Options()[0].choices); ++r) {
      with_ranks[0] = r;
      if (IsLegalOn(config, CellOf(with_ranks).layout.ranks)) legal.push_back(with_ranks);
    }
  });
  return legal;
}

// Draws cells one after the other.
class Drawer {
 public:
  explicit Drawer(uint64_t seed) : stream_(seed, "cells"), legal_(LegalCombinations()) {
    std::set<Pair> pairs;
    for (const Draw& draw : legal_) pairs.merge(PairsOf(draw));
    for (const Pair& pair : pairs) AddVariants(pair);
    of_pairs_ = std::ssize(open_);
  }

  // The best of some draws, all of which have one of the open pairs.
  MatrixCell Next() {
    const std::optional<Pair> wanted = AnyOpen();
    const std::vector<std::vector<Draw>> by_ranks = WithPair(wanted);
    Draw best;
    for (int64_t most = -1, i = 0; i < kDrawsPerCell || most < 0; ++i) {
      Draw draw = Complete(AnyOf(AnyOf(by_ranks)), wanted);
      const int64_t fresh = taken_.contains(draw) ? -1 : CountOpen(PairsOf(draw));
      if (fresh > most) std::tie(best, most) = std::tuple(std::move(draw), fresh);
    }
    taken_.insert(best);
    for (const Pair& pair : PairsOf(best)) open_.erase(pair);
    MatrixCell cell = CellOf(best);
    CHECK(IsLegal(cell)) << cell.name << ": an option that decides is not marked";
    return cell;
  }

  Coverage coverage() const { return {of_pairs_ - std::ssize(open_), of_pairs_}; }

 private:
  template <class T>
  const T& AnyOf(const std::vector<T>& of) {
    return of[stream_.Below(next_++, of.size())];
  }

  // The choice of an option that contradicts nothing stands for all of them.
  void AddVariants(const Pair& pair) {
    const auto choices = [](int option, int choice) {
      const auto all = static_cast<int>(std::ssize(Options()[option].choices));
      return Options()[option].decides ? std::pair(choice, choice + 1) : std::pair(0, all);
    };
    const auto [a, end_a] = choices(pair.option_a, pair.choice_a);
    const auto [b, end_b] = choices(pair.option_b, pair.choice_b);
    for (int i = a; i < end_a; ++i) {
      for (int j = b; j < end_b; ++j) open_.insert({pair.option_a, i, pair.option_b, j});
    }
  }

  std::optional<Pair> AnyOpen() {
    if (open_.empty()) return std::nullopt;
    return *std::next(open_.begin(), static_cast<int64_t>(stream_.Below(next_++, open_.size())));
  }

  int64_t CountOpen(const std::set<Pair>& pairs) const {
    return std::ranges::count_if(pairs, [&](const Pair& pair) { return open_.contains(pair); });
  }

  // The legal combinations that can be completed to have the pair, by number of ranks.
  std::vector<std::vector<Draw>> WithPair(const std::optional<Pair>& wanted) const {
    const auto fits = [](const Draw& draw, int option, int choice) {
      return !Options()[option].decides || draw[option] == choice;
    };
    std::map<int, std::vector<Draw>> by_ranks;
    for (const Draw& draw : legal_) {
      if (!wanted || (fits(draw, wanted->option_a, wanted->choice_a) &&
                      fits(draw, wanted->option_b, wanted->choice_b))) {
        by_ranks[draw[0]].push_back(draw);
      }
    }
    std::vector<std::vector<Draw>> lists;
    for (auto& [ranks, draws] : by_ranks) lists.push_back(std::move(draws));
    return lists;
  }

  // Chooses at random what contradicts nothing.
  Draw Complete(Draw draw, const std::optional<Pair>& wanted) {
    for (int i = 0; i < std::ssize(draw); ++i) {
      if (Options()[i].decides) continue;
      draw[i] = static_cast<int>(stream_.Below(next_++, Options()[i].choices.size()));
    }
    if (wanted) {
      draw[wanted->option_a] = wanted->choice_a;
      draw[wanted->option_b] = wanted->choice_b;
    }
    return draw;
  }

  const RandomStream stream_;
  uint64_t next_ = 0;
  const std::vector<Draw> legal_;
  std::set<Pair> open_;  // of the legal ones, those that no cell has had
  int64_t of_pairs_ = 0;
  std::set<Draw> taken_;
};

}  // namespace

std::vector<MatrixCell> DrawCells(int count, uint64_t seed, Coverage* coverage) {
  Drawer drawer(seed);
  std::vector<MatrixCell> cells;
  for (int i = 0; i < count; ++i) cells.push_back(drawer.Next());
  if (coverage != nullptr) *coverage = drawer.coverage();
  return cells;
}

}  // namespace moebius
