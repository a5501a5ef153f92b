#include "configs/overrides.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "configs/fields.h"
#include "configs/text_parser.h"

namespace moebius {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

namespace {

// The field that a path ends at, in the message that holds it.
struct Target {
  Message* parent = nullptr;
  std::string parent_path;
  const FieldDescriptor* field = nullptr;
  int index = -1;  // of an element
};

struct PathStep {
  std::string name;
  int index = -1;
};

// "domains[2]" -> {"domains", 2}. False when it is neither a name nor a name with an index.
bool ParseStep(const std::string& text, PathStep* step) {
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('[', 1));
  step->name = parts[0];
  if (parts.size() == 1) return true;
  return absl::EndsWith(parts[1], "]") &&
         absl::SimpleAtoi(parts[1].substr(0, parts[1].size() - 1), &step->index) &&
         step->index >= 0;
}

// Checks that `step` names a field of `parent` and an element of it where it has to.
std::string CheckStep(const Message& parent, const PathStep& step, bool last) {
  const FieldDescriptor* field = parent.GetDescriptor()->FindFieldByName(step.name);
  if (!field) return NoSuchField(parent.GetDescriptor(), step.name);
  if (!last && !field->message_type()) return "has no fields, end the path here";
  if (step.index < 0) {
    const bool needs_index = !last && field->is_repeated();
    return needs_index ? absl::StrCat("is a list, name an element as in ", step.name, "[0]") : "";
  }
  if (!field->is_repeated()) return "is not a list, leave out the index";
  if (!field->message_type()) return "its elements cannot be set one by one, set the whole list";
  const int size = parent.GetReflection()->FieldSize(parent, field);
  if (step.index < size) return "";
  return size == 0 ? "is empty, set the whole list"
                   : absl::StrCat("no such element, must be from 0 to ", size - 1);
}

// Walks `path` from *config; creates the messages on the way.
ConfigError FindTarget(const std::string& path, RunConfig* config, Target* target) {
  target->parent = config;
  const std::vector<std::string> texts = absl::StrSplit(path, '.');
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string here = JoinPath(target->parent_path, texts[i]);
    PathStep step;
    if (!ParseStep(texts[i], &step))
      return {here, "is no path, write it as in data.domains[0].name"};
    const bool last = i + 1 == texts.size();
    const std::string problem = CheckStep(*target->parent, step, last);
    if (!problem.empty()) return {here, problem};
    target->field = target->parent->GetDescriptor()->FindFieldByName(step.name);
    target->index = step.index;
    if (last) break;
    const Reflection* reflection = target->parent->GetReflection();
    target->parent = step.index >= 0 ? reflection->MutableRepeatedMessage(target->parent,
                                                                          target->field, step.index)
                                     : reflection->MutableMessage(target->parent, target->field);
    target->parent_path = here;
  }
  return {};
}

bool IsQuoted(absl::string_view text) {
  return absl::StartsWith(text, "\"") || absl::StartsWith(text, "'");
}

std::string Quote(absl::string_view text) { return absl::StrCat("\"", absl::CEscape(text), "\""); }

// The value of a string field as text format, quotes added where there are none.
std::string QuoteStrings(const std::string& value, bool repeated) {
  const absl::string_view text = absl::StripAsciiWhitespace(value);
  if (IsQuoted(text)) return value;
  if (!repeated || !absl::StartsWith(text, "[") || !absl::EndsWith(text, "]")) return Quote(value);
  const absl::string_view list = text.substr(1, text.size() - 2);
  if (absl::StripAsciiWhitespace(list).empty() || absl::StrContains(list, '"')) return value;
  std::vector<std::string> items;
  for (const absl::string_view item : absl::StrSplit(list, ',')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(item);
    items.push_back(IsQuoted(stripped) ? std::string(stripped) : Quote(stripped));
  }
  return absl::StrCat("[", absl::StrJoin(items, ", "), "]");
}

// `value` as a message of the parent's type in which only the target is set; null on failure.
std::unique_ptr<Message> ParseValue(const Target& target, const std::string& value,
                                    const Origin& origin, SourceMap* origins,
                                    std::vector<LocatedError>* errors) {
  std::unique_ptr<Message> parsed(target.parent->New());
  const FieldDescriptor* field = target.field;
  const bool is_string = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
  const std::string name = absl::StrCat(field->name(), ":");
  const size_t num_errors = errors->size();
  ParseText({.source = origin.source,
             .order = origin.order,
             .base_path = target.parent_path,
             .text = name + (is_string ? QuoteStrings(value, field->is_repeated()) : value),
             .column_shift = origin.position.column - 1 - static_cast<int>(name.size())},
            parsed.get(), origins, errors);
  if (errors->size() > num_errors) return nullptr;
  std::vector<const FieldDescriptor*> fields;
  parsed->GetReflection()->ListFields(*parsed, &fields);
  const bool many = target.index >= 0 && parsed->GetReflection()->FieldSize(*parsed, field) != 1;
  if (many || fields.size() > 1) {
    const std::string path = JoinPath(target.parent_path, field->name());
    errors->push_back({origin, {path, "more than one value, give one"}});
    return nullptr;
  }
  return parsed;
}

void Assign(const Target& target, Message* parsed) {
  const Reflection* reflection = target.parent->GetReflection();
  if (target.index >= 0) {
    reflection->MutableRepeatedMessage(target.parent, target.field, target.index)
        ->CopyFrom(reflection->GetRepeatedMessage(*parsed, target.field, 0));
    return;
  }
  reflection->ClearField(target.parent, target.field);
  target.parent->MergeFrom(*parsed);
}

// The origin of byte `byte` of an override.
Origin OriginOf(const std::string& override, size_t byte, int order) {
  const Position position = {1, static_cast<int>(byte) + 1};
  return {absl::StrCat("--set ", Printable(override)), order, position};
}

}  // namespace

void ApplyOverride(const std::string& override, int order, RunConfig* config, SourceMap* origins,
                   std::vector<LocatedError>* errors) {
  const size_t equals = override.find('=');
  if (equals == std::string::npos) {
    errors->push_back(
        {OriginOf(override, 0, order), {"", "is not path=value, as in --set train.num_steps=100"}});
    return;
  }
  const std::string path(absl::StripAsciiWhitespace(override.substr(0, equals)));
  const Origin origin = OriginOf(override, equals + 1, order);
  RunConfig changed = *config;
  Target target;
  const ConfigError wrong_path = FindTarget(path, &changed, &target);
  if (!wrong_path.message.empty()) {
    errors->push_back({OriginOf(override, 0, order), wrong_path});
    return;
  }
  SourceMap value_origins;
  const auto parsed =
      ParseValue(target, override.substr(equals + 1), origin, &value_origins, errors);
  if (!parsed) return;
  Assign(target, parsed.get());
  origins->Erase(path);
  const std::string parsed_path =
      JoinPath(target.parent_path, target.field->name() + (target.index >= 0 ? "[0]" : ""));
  origins->Graft(value_origins, parsed_path, path);
  *config = changed;
}

}  // namespace moebius
