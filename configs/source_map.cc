#include "configs/source_map.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace moebius {

namespace {

std::tuple<int, int, int> SortKey(const LocatedError& located) {
  const Origin& origin = located.origin;
  const int order = origin.source.empty() ? std::numeric_limits<int>::max() : origin.order;
  return {order, origin.position.line, origin.position.column};
}

std::string Format(const std::string& file, const LocatedError& located) {
  const Origin& origin = located.origin;
  std::string text = origin.source.empty() ? file : origin.source;
  if (origin.position.line > 0) {
    absl::StrAppend(&text, ":", origin.position.line, ":", origin.position.column);
  }
  absl::StrAppend(&text, ": ");
  if (!located.error.path.empty()) absl::StrAppend(&text, located.error.path, ": ");
  return absl::StrCat(text, located.error.message);
}

// Whether `path` is `top` or below it.
bool IsAtOrBelow(const std::string& path, const std::string& top) {
  if (!absl::StartsWith(path, top)) return false;
  return path.size() == top.size() || path[top.size()] == '.' || path[top.size()] == '[';
}

}  // namespace

void SourceMap::Erase(const std::string& path) {
  std::erase_if(origins_, [&](const auto& entry) { return IsAtOrBelow(entry.first, path); });
}

void SourceMap::Graft(const SourceMap& other, const std::string& from, const std::string& to) {
  for (const auto& [path, origin] : other.origins_) {
    if (IsAtOrBelow(path, from)) origins_[to + path.substr(from.size())] = origin;
  }
}

Origin SourceMap::Find(const std::string& path) const {
  const auto it = origins_.find(path);
  return it == origins_.end() ? Origin() : it->second;
}

std::string Printable(absl::string_view text) {
  constexpr size_t kLongest = 80;
  std::string printable;
  for (const unsigned char c : text.substr(0, kLongest)) {
    if (c >= 32 && c < 127) {
      printable += static_cast<char>(c);
    } else {
      absl::StrAppend(&printable, "\\x", absl::Hex(c, absl::kZeroPad2));
    }
  }
  if (text.size() > kLongest) absl::StrAppend(&printable, "...");
  return printable;
}

absl::Status ErrorStatus(const std::string& file, std::vector<LocatedError> errors) {
  std::stable_sort(errors.begin(), errors.end(), [](const LocatedError& a, const LocatedError& b) {
    return SortKey(a) < SortKey(b);
  });
  std::string text;
  for (size_t i = 0; i < std::min(errors.size(), kMaxErrors); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "\n", Format(file, errors[i]));
  }
  if (errors.size() > kMaxErrors) {
    absl::StrAppend(&text, "\n", file, ": and more errors");
  }
  return absl::InvalidArgumentError(text);
}

}  // namespace moebius
