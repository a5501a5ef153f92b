// Every recipe of configs/recipes is a valid config.

#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "configs/load.h"
#include "tests/house/source_tree.h"

namespace moebius::house {
namespace {

// The errors of every recipe in the tree.
std::vector<std::string> BrokenRecipes(const SourceTree& tree, int* num_recipes) {
  std::vector<std::string> errors;
  for (const SourceFile& file : tree) {
    if (!file.path.starts_with("configs/recipes/") || !file.path.ends_with(".textproto")) continue;
    ++*num_recipes;
    const absl::Status status = ParseRunConfig(file.path, absl::StrJoin(file.lines, "\n")).status();
    if (!status.ok()) errors.emplace_back(status.message());
  }
  return errors;
}

TEST(Recipes, OfTheTreeAreValid) {
  int num_recipes = 0;
  for (const std::string& error : BrokenRecipes(ReadSourceTree(SourceRoot()), &num_recipes)) {
    ADD_FAILURE() << error;
  }
  EXPECT_GE(num_recipes, 3);
}

TEST(Recipes, BrokenOneIsFound) {
  int num_recipes = 0;
  const SourceTree tree = {
      {.path = "configs/recipes/a.textproto", .lines = {"run { dir: \"a\" }", "trian {}"}}};
  const std::vector<std::string> errors = BrokenRecipes(tree, &num_recipes);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_NE(errors[0].find("configs/recipes/a.textproto:2:1: trian"), std::string::npos)
      << errors[0];
}

}  // namespace
}  // namespace moebius::house
