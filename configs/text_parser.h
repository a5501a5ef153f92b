// Text format to message, with an origin for every field and every error in our words. Internal to
// configs/.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "configs/source_map.h"

namespace moebius {

struct ConfigText {
  std::string source;     // file name, or "--set path=value"
  int order = 0;          // Origin::order
  std::string base_path;  // path of the message that the text fills; "" for a whole RunConfig
  std::string text;
  int column_shift = 0;  // added to columns of the first line
};

// Fills *message, which must be empty, from the text; records errors and, where it parses, origins.
// Unknown fields are all found; parsing ends at the first other error. Nesting is limited before
// protobuf sees the text, so that no input can exhaust the stack.
void ParseText(const ConfigText& text, google::protobuf::Message* message, SourceMap* origins,
               std::vector<LocatedError>* errors);

}  // namespace moebius
