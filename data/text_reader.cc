#include "data/text_reader.h"

#include <glob.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace moebius {
namespace {

constexpr size_t kBufferBytes = 1 << 16;

bool IsJsonl(absl::string_view path) {
  if (!absl::ConsumeSuffix(&path, ".gz")) absl::ConsumeSuffix(&path, ".zst");
  return absl::EndsWith(path, ".jsonl");
}

bool IsSeparator(const std::string& line) {
  return line == "\f\n" || line == "\f\r\n" || line == "\f";
}

// The string under `key` of the JSON object in `line`.
absl::StatusOr<std::string> TextOf(const std::string& line, const std::string& key) {
  try {
    const auto record = nlohmann::json::parse(line);
    if (!record.is_object()) return absl::InvalidArgumentError("is not a JSON object");
    const auto text = record.find(key);
    if (text == record.end()) {
      return absl::InvalidArgumentError(absl::StrCat("has no key \"", key, "\" (data.text_key)"));
    }
    if (!text->is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\" is a ", text->type_name(), ", must be a string"));
    }
    return text->get<std::string>();
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("invalid JSON at byte ", error.byte));
  }
}

}  // namespace

absl::StatusOr<TextReader> TextReader::Open(const std::string& path, const std::string& text_key) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, ByteSource::Open(path));
  return TextReader(path, text_key, std::move(source));
}

TextReader::TextReader(const std::string& path, const std::string& text_key,
                       std::unique_ptr<ByteSource> source)
    : path_(path),
      text_key_(text_key),
      is_jsonl_(IsJsonl(path)),
      source_(std::move(source)),
      buffer_(kBufferBytes) {}

absl::StatusOr<bool> TextReader::NextLine(std::string& line) {
  line.clear();
  for (;;) {
    const auto end = std::find(unread_.begin(), unread_.end(), '\n');
    const bool complete = end != unread_.end();
    const auto count = static_cast<size_t>(end - unread_.begin()) + (complete ? 1 : 0);
    line.append(unread_.data(), count);
    unread_ = unread_.subspan(count);
    if (complete) break;
    ASSIGN_OR_RETURN(const size_t more, source_->Read(buffer_));
    if (more == 0) break;
    unread_ = std::span<const char>(buffer_).first(more);
  }
  ++line_number_;
  return !line.empty();
}

absl::StatusOr<bool> TextReader::NextText(std::string& document) {
  std::string line;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, NextLine(line));
    if (!more) return !document.empty();
    if (!IsSeparator(line)) {
      document += line;
    } else if (!document.empty()) {
      return true;
    }
  }
}

absl::StatusOr<bool> TextReader::NextRecord(std::string& document) {
  std::string line;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, NextLine(line));
    if (!more) return false;
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    absl::StatusOr<std::string> text = TextOf(line, text_key_);
    if (!text.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ":", line_number_, ": ", text.status().message()));
    }
    document = *std::move(text);
    if (!document.empty()) return true;
  }
}

absl::StatusOr<bool> TextReader::Next(std::string& document) {
  document.clear();
  return is_jsonl_ ? NextRecord(document) : NextText(document);
}

absl::StatusOr<std::vector<std::string>> ExpandPatterns(const std::vector<std::string>& patterns) {
  std::vector<std::string> files;
  for (const std::string& pattern : patterns) {
    glob_t found = {};
    const int code = glob(pattern.c_str(), 0, nullptr, &found);
    files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
    if (code != 0) return absl::NotFoundError(absl::StrCat(pattern, ": no such file"));
  }
  return files;
}

}  // namespace moebius
