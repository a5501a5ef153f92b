// The rules about what may include what.

#include <map>
#include <optional>
#include <regex>
#include <set>

#include "tests/house/rules.h"

namespace moebius::house {
namespace {

// Folders that share a floor do not know each other.
const std::map<std::string, int>& Floors() {
  static const std::map<std::string, int> floors = {{"configs", 0},  {"core", 1},  {"kernels", 2},
                                                    {"parallel", 3}, {"data", 3},  {"optim", 4},
                                                    {"model", 5},    {"train", 6}, {"launcher", 7}};
  return floors;
}

struct Include {
  std::string path;
  bool is_quoted;
};

std::optional<Include> ParseInclude(const std::string& line) {
  static const std::regex pattern(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"].*)");
  std::smatch match;
  if (!std::regex_match(line, match, pattern)) return std::nullopt;
  return Include{.path = match[2], .is_quoted = match[1] == "\""};
}

bool IsSource(const std::string& path) { return HasSuffix(path, {".h", ".cc", ".cu", ".cuh"}); }

// Calls visit(file, "path:line: ", include) for every include of the tree.
template <typename Visit>
void ForEachInclude(const SourceTree& tree, Visit visit) {
  for (const SourceFile& file : tree) {
    if (!IsSource(file.path)) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::optional<Include> include = ParseInclude(file.lines[i]);
      if (include) visit(file, file.path + ":" + std::to_string(i + 1) + ": ", *include);
    }
  }
}

std::string Folder(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

// Whether `included` names a file of the tree relative to the folder of `path`.
bool IsRelative(const std::set<std::string>& paths, const std::string& path,
                const std::string& included) {
  return included.starts_with(".") || paths.contains(Folder(path) + included);
}

// What is wrong with `path` including `included`; empty when nothing is.
std::string FloorProblem(const std::string& path, const std::string& included) {
  const std::string from = TopLevelFolder(path), to = TopLevelFolder(included);
  if (to == "tests") {
    const bool is_helper = included.starts_with("tests/testing/");
    return is_helper && HasSuffix(path, {"_test.cc"})
               ? ""
               : "includes \"" + included +
                     "\"; only x_test.cc uses tests/, and only tests/testing/";
  }
  if (!Floors().contains(to)) return "";  // a library
  if (HasSuffix(included, {".pb.h"}) && (from == "core" || from == "kernels")) {
    return "includes \"" + included + "\"; " + from + "/ takes plain structs, protos end above it";
  }
  if (from == "core" && to == "configs")
    return "includes \"" + included + "\"; core/ knows no config";
  if (from != to && Floors().at(to) >= Floors().at(from)) {
    return "includes \"" + included + "\"; " + from + "/ may include lower floors only";
  }
  return "";
}

struct LibraryHome {
  std::string library;
  std::regex header;
  std::vector<std::string> homes;  // prefixes of paths
};

const std::vector<LibraryHome>& LibraryHomes() {
  static const std::vector<LibraryHome> homes = {
      {"CUDA",
       std::regex(
           R"((cuda|cublas|cudnn|cufft|curand|nvtx|device_launch|vector_types|mma).*\.h(pp)?|)"
           R"((cuda|cub|thrust|cutlass|cute|nvtx3|cooperative_groups)/.*|cooperative_groups\.h)"),
       {"kernels/cuda/"}},
      {"NCCL", std::regex(R"(nccl.*\.h)"), {"kernels/cuda/"}},
      {"MPI",
       std::regex(R"(mpi(-ext)?\.h)"),
       {"parallel/mpi_communicator", "launcher/", "tests/bench/"}},
      {"gRPC", std::regex(R"(grpc(\+\+|pp)?/.*|.*\.grpc\.pb\.h)"), {"launcher/"}},
      {"oneDNN", std::regex(R"((oneapi/dnnl/)?dnnl.*)"), {"tests/bench/"}},
      {"SentencePiece", std::regex(R"(sentencepiece.*)"), {"data/tokenizer/"}},
  };
  return homes;
}

bool IsAtHome(const std::string& path, const std::vector<std::string>& homes) {
  for (const std::string& home : homes) {
    if (path.starts_with(home)) return true;
  }
  return false;
}

}  // namespace

Findings CheckFloors(const SourceTree& tree) {
  std::set<std::string> paths;
  for (const SourceFile& file : tree) paths.insert(file.path);
  Findings findings;
  ForEachInclude(tree,
                 [&](const SourceFile& file, const std::string& where, const Include& include) {
                   if (!include.is_quoted || !Floors().contains(TopLevelFolder(file.path))) return;
                   const std::string problem =
                       IsRelative(paths, file.path, include.path)
                           ? "includes \"" + include.path + "\"; write the path from the root"
                           : FloorProblem(file.path, include.path);
                   if (!problem.empty()) findings.push_back(where + problem);
                 });
  return findings;
}

Findings CheckLibraryHomes(const SourceTree& tree) {
  Findings findings;
  ForEachInclude(
      tree, [&](const SourceFile& file, const std::string& where, const Include& include) {
        if (file.path.starts_with("bazel/tests/")) return;
        for (const LibraryHome& home : LibraryHomes()) {
          if (!std::regex_match(include.path, home.header) || IsAtHome(file.path, home.homes))
            continue;
          std::string allowed;
          for (const std::string& prefix : home.homes) allowed += " " + prefix + "*";
          findings.push_back(where + "includes " + include.path + "; " + home.library +
                             " is at home in" + allowed);
        }
      });
  return findings;
}

}  // namespace moebius::house
