#include "configs/fields.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "configs/run.pb.h"
#include "configs/source_map.h"

namespace moebius {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

namespace {

// Levenshtein distance with transpositions of neighbours, letters compared without case.
int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> before_last, last, row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  const auto same = [](char x, char y) { return std::tolower(x) == std::tolower(y); };
  for (size_t i = 1; i <= a.size(); ++i) {
    before_last = std::exchange(last, row);
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + !same(a[i - 1], b[j - 1])});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row.back();
}

// The candidate closest to `name`, or "" when none is close enough to be a slip.
std::string Closest(const std::string& name, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestName = 64;
  if (name.size() > kLongestName) return "";
  std::string best;
  int best_distance = std::max<int>(1, static_cast<int>(name.size()) * 2 / 5) + 1;
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(name, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::vector<std::string> FieldNames(const Descriptor* message) {
  std::vector<std::string> names;
  for (int i = 0; i < message->field_count(); ++i) names.push_back(message->field(i)->name());
  return names;
}

std::vector<std::string> ValueNames(const EnumDescriptor* type) {
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) names.push_back(type->value(i)->name());
  return names;
}

// Paths of the fields called `name` in `message` and below.
void FindByName(const Descriptor* message, const std::string& name, const std::string& base,
                std::vector<std::string>* paths) {
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    const std::string path = JoinPath(base, field->name());
    if (field->name() == name) paths->push_back(path);
    if (field->message_type()) FindByName(field->message_type(), name, path, paths);
  }
}

// The config that `message` is a part of.
const Descriptor* RootOf(const Descriptor* message) {
  const Descriptor* cluster = message->file()->FindMessageTypeByName("ClusterConfig");
  return cluster != nullptr ? cluster : RunConfig::descriptor();
}

void FillDefault(Message* message, const FieldDescriptor* field) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(message, field, field->default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(message, field, field->default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(message, field, field->default_value_uint32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field, field->default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, field, field->default_value_double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->SetFloat(message, field, field->default_value_float());
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, field->default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnum(message, field, field->default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(message, field, field->default_value_string());
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return FillDefaults(reflection->MutableMessage(message, field));
  }
}

}  // namespace

const FieldDescriptor* FindField(const Descriptor* root, const std::string& path) {
  const FieldDescriptor* field = nullptr;
  const Descriptor* message = root;
  for (const std::string& name :
       std::vector<std::string>(absl::StrSplit(WithoutIndices(path), '.'))) {
    field = message == nullptr ? nullptr : message->FindFieldByName(name);
    if (field == nullptr) return nullptr;
    message = field->message_type();
  }
  return field;
}

std::string WithoutIndices(const std::string& path) {
  std::string names;
  bool in_index = false;
  for (const char c : path) {
    if (c == '[') in_index = true;
    if (!in_index) names += c;
    if (c == ']') in_index = false;
  }
  return names;
}

std::string JoinPath(const std::string& base, const std::string& name) {
  return base.empty() ? name : absl::StrCat(base, ".", name);
}

std::string NoSuchField(const Descriptor* message, const std::string& name) {
  std::vector<std::string> elsewhere;
  FindByName(RootOf(message), name, "", &elsewhere);
  if (!elsewhere.empty()) {
    return absl::StrCat("no such field here, did you mean \"", absl::StrJoin(elsewhere, "\" or \""),
                        "\"?");
  }
  const std::vector<std::string> names = FieldNames(message);
  const std::string closest = Closest(name, names);
  if (!closest.empty()) return absl::StrCat("no such field, did you mean \"", closest, "\"?");
  return absl::StrCat("no such field, use one of ", absl::StrJoin(names, ", "));
}

std::string NoSuchValue(const EnumDescriptor* type, const std::string& value) {
  const std::vector<std::string> names = ValueNames(type);
  const std::string closest = Closest(value, names);
  return absl::StrCat(Printable(value), " is not allowed, must be one of ",
                      absl::StrJoin(names, ", "),
                      closest.empty() ? "" : absl::StrCat("; did you mean ", closest, "?"));
}

std::string AllowedType(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "an integer";
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "an integer, not negative";
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(ValueNames(field->enum_type()), ", "));
    case FieldDescriptor::CPPTYPE_STRING:
      return "a string in quotes";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return absl::StrCat("{ ... } with any of ",
                          absl::StrJoin(FieldNames(field->message_type()), ", "));
  }
  return "";
}

void FillDefaults(Message* message) {
  const Reflection* reflection = message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message->GetDescriptor()->field(i);
    const bool is_message = field->message_type() != nullptr;
    if (field->is_repeated()) {
      const int size = is_message ? reflection->FieldSize(*message, field) : 0;
      for (int j = 0; j < size; ++j) {
        FillDefaults(reflection->MutableRepeatedMessage(message, field, j));
      }
    } else if (is_message ||
               (field->has_default_value() && !reflection->HasField(*message, field))) {
      FillDefault(message, field);
    }
  }
}

}  // namespace moebius
