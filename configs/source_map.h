// Where each field of a config was said, so that every error can point there. Internal to configs/.
//
// A path names a field from RunConfig on: "data.domains[0].weight". An element of a repeated field
// has its index, the field as a whole has none.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace moebius {

struct Position {
  int line = 0;    // from 1; 0: unknown
  int column = 0;  // from 1
};

struct Origin {
  std::string source;  // file name, or "--set path=value"
  int order = 0;       // 0 for the file, i for the i-th override
  Position position;
};

struct ConfigError {
  std::string path;
  std::string message;
};

struct LocatedError {
  Origin origin;
  ConfigError error;
};

class SourceMap {
 public:
  void Set(const std::string& path, const Origin& origin) { origins_[path] = origin; }

  // Forgets `path` and everything below it.
  void Erase(const std::string& path);

  // Copies what `other` knows of `from` and everything below it, as `to`.
  void Graft(const SourceMap& other, const std::string& from, const std::string& to);

  // The origin of `path`; with an empty source when nobody said it.
  Origin Find(const std::string& path) const;

 private:
  std::map<std::string, Origin> origins_;
};

// `text` on one line: control characters and bytes beyond ASCII as \xNN, long text shortened.
std::string Printable(absl::string_view text);

// More errors than this are not told.
inline constexpr size_t kMaxErrors = 20;

// InvalidArgument with a line for each error, ordered by origin (unlocated ones last, named after
// `file`), cut after kMaxErrors. REQUIRES: errors is not empty.
absl::Status ErrorStatus(const std::string& file, std::vector<LocatedError> errors);

}  // namespace moebius
