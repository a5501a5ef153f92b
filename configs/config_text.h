// The text of a config file, before it is parsed. Internal to configs/.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace moebius {

// At most one byte more than a config may have, so that neither a wrong file nor a device fills the
// memory. NotFound for a missing file, else InvalidArgument.
absl::StatusOr<std::string> ReadConfigText(const std::string& file);

// `text` without a byte order mark. InvalidArgument, naming the file `name`, if it is too long for
// a config or binary.
absl::StatusOr<std::string> PlainText(const std::string& name, const std::string& text);

}  // namespace moebius
