// The tree keeps the rules of the house.

#include <gtest/gtest.h>

#include "tests/house/rules.h"
#include "tests/house/source_tree.h"

namespace moebius::house {
namespace {

const SourceTree& Tree() {
  static const SourceTree tree = ReadSourceTree(SourceRoot());
  return tree;
}

const std::vector<std::string>& LinesOf(const std::string& path) {
  for (const SourceFile& file : Tree()) {
    if (file.path == path) return file.lines;
  }
  static const std::vector<std::string> none;
  return none;
}

void ExpectKept(const Findings& findings) {
  for (const std::string& finding : findings) ADD_FAILURE() << finding;
}

TEST(House, TreeWasRead) {
  EXPECT_FALSE(LinesOf("tests/house/tree_test.cc").empty());
  EXPECT_FALSE(LinesOf("WORKSPACE").empty());
}

TEST(House, IncludesFollowTheFloors) { ExpectKept(CheckFloors(Tree())); }

TEST(House, LibrariesAreAtHome) { ExpectKept(CheckLibraryHomes(Tree())); }

TEST(House, ProtoFieldsHaveComments) { ExpectKept(CheckProtoComments(Tree())); }

TEST(House, FilesAreSmall) {
  ExpectKept(CheckFileSizes(Tree(), LinesOf("tests/house/large_files.txt")));
}

TEST(House, FoldersHavePages) { ExpectKept(CheckReadmesExist(Tree())); }

TEST(House, PagesAreShort) { ExpectKept(CheckReadmeLengths(Tree())); }

TEST(House, TodosHaveOwners) { ExpectKept(CheckTodos(Tree())); }

TEST(House, NoPathsOfAMachine) { ExpectKept(CheckMachinePaths(Tree())); }

TEST(House, PythonIsAtHome) { ExpectKept(CheckPythonHomes(Tree())); }

TEST(House, HeadersAreIncludedOnce) { ExpectKept(CheckPragmaOnce(Tree())); }

}  // namespace
}  // namespace moebius::house
