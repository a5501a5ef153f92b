// What the descriptors know about the fields of a config. Internal to configs/.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <string>

namespace moebius {

// The field that `path` (with or without indices) names from `root` on, or null.
const google::protobuf::FieldDescriptor* FindField(const google::protobuf::Descriptor* root,
                                                   const std::string& path);

// `path` without its indices: "data.domains[0].weight" becomes "data.domains.weight".
std::string WithoutIndices(const std::string& path);

// "base.name", or "name" when base is empty.
std::string JoinPath(const std::string& base, const std::string& name);

// A sentence about the unknown field `name` of `message`: fields of that name elsewhere in the
// config, else the closest name (by edit distance) in the same message, else what there is.
std::string NoSuchField(const google::protobuf::Descriptor* message, const std::string& name);

// A sentence about the unknown value `value` of an enum.
std::string NoSuchValue(const google::protobuf::EnumDescriptor* type, const std::string& value);

// What may stand in `field`, for instance "an integer" or "one of FP64, FP32, BF16".
std::string AllowedType(const google::protobuf::FieldDescriptor* field);

// Sets every field that has a default and is absent to it, in all messages below; absent singular
// messages are created.
void FillDefaults(google::protobuf::Message* message);

}  // namespace moebius
