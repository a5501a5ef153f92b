#pragma once

// The source tree, as the house rules read it.

#include <filesystem>
#include <string>
#include <vector>

namespace moebius::house {

struct SourceFile {
  std::string path;  // from the root, as "kernels/cpu/gemm.cc"
  std::vector<std::string> lines;
};

using SourceTree = std::vector<SourceFile>;

// The top-level folders that hold the project. Whatever else lies in a working copy (build outputs,
// runs, notes) is not part of it.
const std::vector<std::string>& TopLevelFolders();

// Reads the text files of the top-level folders and of the root itself, in order of their paths.
// Binary files and compiler caches are left out.
SourceTree ReadSourceTree(const std::filesystem::path& root);

// The root of the working copy that the running test was built from. Requires `//:WORKSPACE` among
// the test's data.
std::filesystem::path SourceRoot();

// Whether `path` ends with one of `suffixes`.
bool HasSuffix(const std::string& path, const std::vector<std::string>& suffixes);

// The first folder of `path`; empty for a file of the root.
std::string TopLevelFolder(const std::string& path);

}  // namespace moebius::house
