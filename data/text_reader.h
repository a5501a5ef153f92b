// Documents out of text files, one after the other, in constant memory but for the document itself.
//
//   *.jsonl       a JSON object a line; the document is the string under a key. Blank lines are
//   skipped. anything else text: a line that holds a form feed alone ends a document; without one
//   the file is
//                 one document. Any bytes are legal and kept.
//
// Each may be compressed: .gz, .zst.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/byte_source.h"

namespace moebius {

class TextReader {
 public:
  // `text_key` holds the text of a JSONL record.
  static absl::StatusOr<TextReader> Open(const std::string& path, const std::string& text_key);

  // Puts the next document that is not empty into `document`; false at the end. Errors name the
  // file and the line, or the offset of damaged compressed data.
  absl::StatusOr<bool> Next(std::string& document);

  // Bytes of the file that are done with, for progress.
  int64_t offset() const { return source_->offset(); }

 private:
  TextReader(const std::string& path, const std::string& text_key,
             std::unique_ptr<ByteSource> source);
  absl::StatusOr<bool> NextLine(std::string& line);  // with its line end, if it has one
  absl::StatusOr<bool> NextText(std::string& document);
  absl::StatusOr<bool> NextRecord(std::string& document);

  std::string path_, text_key_;
  bool is_jsonl_;
  std::unique_ptr<ByteSource> source_;
  std::vector<char> buffer_;
  std::span<const char> unread_;  // of the buffer
  int64_t line_number_ = 0;
};

// The files that the patterns ("*", "?", "[...]" match names) name, in order of patterns, then
// names. NotFound names a pattern without a file.
absl::StatusOr<std::vector<std::string>> ExpandPatterns(const std::vector<std::string>& patterns);

}  // namespace moebius
