#include "data/split.h"

#include <algorithm>

namespace moebius {
namespace {

constexpr size_t kPieceBytes = 64 << 10;

// Where to cut `text`, which is longer than two pieces.
size_t CutAt(std::string_view text) {
  for (const std::string_view boundary : {"\n\n", "\n"}) {
    const size_t at = text.substr(0, 2 * kPieceBytes).find(boundary, kPieceBytes);
    if (at != std::string_view::npos) return at + boundary.size();
  }
  size_t at = kPieceBytes;
  const auto continues = [&] { return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80; };
  while (at > kPieceBytes - 3 && continues()) --at;
  return at;
}

}  // namespace

void HoldOut(std::vector<DocumentInfo> documents, double fraction, int64_t max_bytes,
             std::unordered_set<uint64_t>& held_out) {
  if (documents.empty()) return;
  std::ranges::sort(documents, {}, &DocumentInfo::hash);
  double total = 0;
  for (const DocumentInfo& document : documents) total += static_cast<double>(document.num_bytes);
  double left = fraction * total;
  if (max_bytes > 0) left = std::min(left, static_cast<double>(max_bytes));
  for (const DocumentInfo& document : documents) {
    const bool duplicate = held_out.contains(document.hash);
    if ((left <= 0 && !duplicate) || document.hash == documents.back().hash) continue;
    held_out.insert(document.hash);
    left -= static_cast<double>(document.num_bytes);
  }
}

std::vector<std::string_view> CutDocument(std::string_view document) {
  std::vector<std::string_view> pieces;
  while (document.size() > 2 * kPieceBytes) {
    const size_t at = CutAt(document);
    pieces.push_back(document.substr(0, at));
    document.remove_prefix(at);
  }
  pieces.push_back(document);
  return pieces;
}

}  // namespace moebius
