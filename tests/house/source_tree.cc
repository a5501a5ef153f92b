#include "tests/house/source_tree.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace moebius::house {
namespace {

namespace fs = std::filesystem;

SourceFile Split(std::string path, const std::string& text) {
  SourceFile file{.path = std::move(path), .lines = {}};
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) file.lines.push_back(line);
  return file;
}

// Files of the root that belong to one working copy, not to the project (.gitignore).
bool IsOfWorkingCopy(const fs::path& path) {
  const std::string name = path.filename();
  return name == ".git" || name == ".bazelrc.user" || name == "compile_commands.json";
}

void AddFile(const fs::path& root, const fs::path& path, SourceTree& tree) {
  std::ifstream stream(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  if (text.find('\0') != std::string::npos) return;
  tree.push_back(Split(path.lexically_relative(root).string(), text));
}

}  // namespace

const std::vector<std::string>& TopLevelFolders() {
  static const std::vector<std::string> folders = {
      ".ci",   "bazel", "configs",  "core",  "data",  "docs",    "kernels",
      "model", "optim", "parallel", "tests", "train", "launcher"};
  return folders;
}

SourceTree ReadSourceTree(const fs::path& root) {
  SourceTree tree;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.is_regular_file() && !IsOfWorkingCopy(entry.path()))
      AddFile(root, entry.path(), tree);
  }
  for (const std::string& folder : TopLevelFolders()) {
    if (!fs::exists(root / folder)) continue;
    for (auto it = fs::recursive_directory_iterator(root / folder);
         it != fs::recursive_directory_iterator(); ++it) {
      if (it->path().filename() == "__pycache__") it.disable_recursion_pending();
      if (it->is_regular_file()) AddFile(root, it->path(), tree);
    }
  }
  std::sort(tree.begin(), tree.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return tree;
}

fs::path SourceRoot() { return fs::canonical("WORKSPACE").parent_path(); }

bool HasSuffix(const std::string& path, const std::vector<std::string>& suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](const std::string& suffix) { return path.ends_with(suffix); });
}

std::string TopLevelFolder(const std::string& path) {
  const size_t slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace moebius::house
