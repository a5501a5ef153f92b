// The rules that read single files: protos, sizes, pages, words.

#include <algorithm>
#include <regex>
#include <set>

#include "tests/house/rules.h"

namespace moebius::house {
namespace {

constexpr size_t kMaxSourceLines = 400;
constexpr size_t kMaxReadmeLines = 40;

std::string Where(const SourceFile& file, size_t line_idx) {
  return file.path + ":" + std::to_string(line_idx + 1) + ": ";
}

// This folder spells out what it forbids.
bool IsOwnFile(const SourceFile& file) { return file.path.starts_with("tests/house/"); }

// One finding for each line that matches.
Findings FindLines(const SourceTree& tree, const std::regex& pattern, const std::string& sentence) {
  Findings findings;
  for (const SourceFile& file : tree) {
    if (IsOwnFile(file)) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      if (std::regex_search(file.lines[i], pattern)) findings.push_back(Where(file, i) + sentence);
    }
  }
  return findings;
}

bool IsComment(const std::string& line) {
  static const std::regex pattern(R"(^\s*//.*)");
  return std::regex_match(line, pattern);
}

}  // namespace

Findings CheckProtoComments(const SourceTree& tree) {
  // A field begins with its label or, in proto3, with its type; an enum's value has neither.
  static const std::regex field(
      R"(^\s*(optional|repeated|required)?\s*(map<.*>|[A-Za-z_][\w.]*)\s+([a-z_]\w*)\s*=\s*\d+.*)");
  Findings findings;
  for (const SourceFile& file : tree) {
    if (!HasSuffix(file.path, {".proto"}) || !file.path.starts_with("configs/")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      std::smatch match;
      if (!std::regex_match(file.lines[i], match, field)) continue;
      const bool is_commented =
          file.lines[i].find("//") != std::string::npos || (i > 0 && IsComment(file.lines[i - 1]));
      if (!is_commented) {
        findings.push_back(Where(file, i) + "field " + match[3].str() +
                           " has no comment; say meaning, unit, default and range");
      }
    }
  }
  return findings;
}

Findings CheckFileSizes(const SourceTree& tree, const std::vector<std::string>& exceptions) {
  Findings findings;
  std::set<std::string> excepted;
  for (const std::string& line : exceptions) {
    const size_t space = line.find(' ');
    if (line.empty() || line[0] == '#') continue;
    if (space == std::string::npos) findings.push_back(line + ": an exception needs a reason");
    excepted.insert(line.substr(0, space));
  }
  for (const SourceFile& file : tree) {
    if (!HasSuffix(file.path, {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".bzl", ".proto"}))
      continue;
    const bool is_excepted = excepted.erase(file.path) > 0;
    const bool is_large = file.lines.size() > kMaxSourceLines;
    const std::string lines = std::to_string(file.lines.size()) + " lines";
    if (is_large && !is_excepted) {
      findings.push_back(file.path + ": " + lines + "; split it at " +
                         std::to_string(kMaxSourceLines) + " or give a reason in large_files.txt");
    }
    if (!is_large && is_excepted) {
      findings.push_back(file.path + ": " + lines + "; take it out of large_files.txt");
    }
  }
  for (const std::string& path : excepted) {
    findings.push_back(path + ": stands in large_files.txt, not in the tree");
  }
  return findings;
}

Findings CheckReadmesExist(const SourceTree& tree) {
  std::set<std::string> folders;
  for (const SourceFile& file : tree) folders.insert(TopLevelFolder(file.path));
  for (const char* exempt : {"", ".ci", "docs"}) folders.erase(exempt);
  for (const SourceFile& file : tree) {
    if (file.path == TopLevelFolder(file.path) + "/README.md")
      folders.erase(TopLevelFolder(file.path));
  }
  Findings findings;
  for (const std::string& folder : folders) findings.push_back(folder + "/README.md: missing");
  return findings;
}

Findings CheckReadmeLengths(const SourceTree& tree) {
  Findings findings;
  for (const SourceFile& file : tree) {
    if (file.path.ends_with("/README.md") && file.lines.size() > kMaxReadmeLines) {
      findings.push_back(file.path + ": " + std::to_string(file.lines.size()) +
                         " lines; a folder's page has at most " + std::to_string(kMaxReadmeLines));
    }
  }
  return findings;
}

Findings CheckTodos(const SourceTree& tree) {
  static const std::regex pattern(R"(\b(TODO(?!\([\w.-]+\))|FIXME|XXX)\b)");
  return FindLines(tree, pattern, "something left to do without an owner; write TODO(name)");
}

Findings CheckMachinePaths(const SourceTree& tree) {
  static const std::regex pattern(R"((^|[^\w.])/(work|root|home|Users|mnt)/[\w.])");
  return FindLines(tree, pattern,
                   "a path of one machine; use one relative to the root or a variable");
}

Findings CheckPythonHomes(const SourceTree& tree) {
  Findings findings;
  for (const SourceFile& file : tree) {
    if (!HasSuffix(file.path, {".py"})) continue;
    const auto is_in = [&](const char* folder) { return file.path.starts_with(folder); };
    if (is_in("data/corpora/") || is_in("tests/golden/") || is_in("tests/bench/") ||
        is_in("tests/end_to_end/") || is_in("bazel/tools/")) {
      continue;
    }
    findings.push_back(
        file.path +
        ": Python stands in data/corpora, tests/{golden,bench,end_to_end} and bazel/tools");
  }
  return findings;
}

Findings CheckPragmaOnce(const SourceTree& tree) {
  Findings findings;
  for (const SourceFile& file : tree) {
    if (!HasSuffix(file.path, {".h", ".cuh"})) continue;
    const auto directive = std::find_if(file.lines.begin(), file.lines.end(),
                                        [](const std::string& line) { return line[0] == '#'; });
    if (directive == file.lines.end() || *directive != "#pragma once") {
      findings.push_back(file.path + ": its first directive is not #pragma once");
    }
  }
  return findings;
}

}  // namespace moebius::house
