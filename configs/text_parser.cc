#include "configs/text_parser.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "configs/fields.h"
#include "configs/ranges.h"

namespace moebius {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;
using ::google::protobuf::TextFormat;
using ::google::protobuf::io::ArrayInputStream;
using ::google::protobuf::io::ErrorCollector;
using ::google::protobuf::io::Tokenizer;

namespace {

constexpr int kMaxDepth = 32;

struct RawError {
  Position position;
  std::string message;
};

class Collector : public ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    // A line of -1 repeats what was said before with a line.
    if (line >= 0) errors_.push_back({{line + 1, column + 1}, message});
  }
  void AddWarning(int line, int column, const std::string& message) override {
    AddError(line, column, message);
  }
  const std::vector<RawError>& errors() const { return errors_; }

 private:
  std::vector<RawError> errors_;
};

// Where a field stands in a text.
struct NamedField {
  Position name;
  Position value;    // the token after ":" or "{"'s own
  std::string path;  // names from the message that the text fills, without indices
};

// The field names of a text in order, and whether braces or brackets nest too deep.
struct Outline {
  std::vector<NamedField> fields;
  Position too_deep;  // where; line 0: nowhere
};

bool Opens(const std::string& token) { return token == "{" || token == "<" || token == "["; }
bool Closes(const std::string& token) { return token == "}" || token == ">" || token == "]"; }

Position PositionOf(const Tokenizer::Token& token) { return {token.line + 1, token.column + 1}; }

Outline MakeOutline(const std::string& text) {
  ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  Collector ignored;
  Tokenizer tokenizer(&stream, &ignored);
  tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
  tokenizer.set_require_space_after_number(false);
  Outline outline;
  std::vector<std::string> open;  // the path at each open brace or bracket
  std::string path;
  while (tokenizer.Next()) {
    const Tokenizer::Token& token = tokenizer.current();
    const Tokenizer::Token& before = tokenizer.previous();
    const bool names_field = token.text == ":" || token.text == "{" || token.text == "<";
    if (names_field && before.type == Tokenizer::TYPE_IDENTIFIER) {
      path = JoinPath(open.empty() ? "" : open.back(), before.text);
      outline.fields.push_back({PositionOf(before), PositionOf(token), path});
    } else if (before.text == ":" && !outline.fields.empty()) {
      outline.fields.back().value = PositionOf(token);
    }
    if (Opens(token.text)) open.push_back(path);
    if (Closes(token.text) && !open.empty()) {
      path = open.back();
      open.pop_back();
    }
    if (open.size() > kMaxDepth) {
      outline.too_deep = PositionOf(token);
      break;
    }
  }
  return outline;
}

// The last field whose name begins before `position`. protobuf reports most errors at the token
// after the culprit.
NamedField FieldBefore(const Outline& outline, const Position& position) {
  const auto after = std::partition_point(outline.fields.begin(), outline.fields.end(),
                                          [&](const NamedField& field) {
                                            return std::pair(field.name.line, field.name.column) <
                                                   std::pair(position.line, position.column);
                                          });
  return after == outline.fields.begin() ? NamedField() : *std::prev(after);
}

// What stands in `text` between `from` and the next `to`.
std::string Between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t begin = text.find(from);
  if (begin == std::string::npos) return "";
  const size_t end = text.find(to, begin + from.size());
  return text.substr(begin + from.size(), end - begin - from.size());
}

// The token that protobuf met instead of what it expected.
std::string FoundToken(const std::string& said) {
  const std::string got = Between(said, "got: ", "\n");
  return got.empty() ? Between(said, "found \"", "\".") : got;
}

// What protobuf said about the value of `field`, in our words; "" when it is not about the value.
std::string ExplainValue(const RawError& raw, const FieldDescriptor* field, const Range* range,
                         const Position& value) {
  const std::string allowed = absl::StrCat(", must be ", AllowedType(field), range ? ", " : "",
                                           range ? range->Describe() : "");
  const std::string& said = raw.message;
  if (absl::StartsWith(said, "Unknown enumeration value")) {
    return NoSuchValue(field->enum_type(), Between(said, "value of \"", "\" for"));
  }
  if (absl::StartsWith(said, "Integer out of range")) {
    return absl::StrCat(Between(said, "(", ")"), " is out of range", allowed);
  }
  if (absl::StartsWith(said, "Invalid value for boolean")) {
    return absl::StrCat(Between(said, "Value: \"", "\"."), " is not allowed", allowed);
  }
  const bool at_value = raw.position.line == value.line && raw.position.column == value.column;
  const bool expected_scalar = absl::StartsWith(said, "Expected integer") ||
                               absl::StartsWith(said, "Expected double") ||
                               absl::StartsWith(said, "Expected string");
  if (!expected_scalar && !(at_value && absl::StartsWith(said, "Expected"))) return "";
  const std::string found = FoundToken(said);
  return found.empty() ? absl::StrCat("has no value", allowed)
                       : absl::StrCat("found ", Printable(found), allowed);
}

// What protobuf said about the text itself.
std::string ExplainSyntax(const std::string& said) {
  if (absl::StrContains(said, "control characters")) {
    return "unprintable character, a config is plain text";
  }
  if (absl::StrContains(said, "non ascii")) return "only strings and comments may go beyond ASCII";
  if (absl::EndsWith(said, "got: ")) return "the text ends too early, is a closing } missing?";
  if (absl::StartsWith(said, "Ignoring extension")) {
    return "a name in [ ] is an extension, and there are none";
  }
  if (absl::StrContains(said, "has no field named")) {
    return absl::StrCat("no such field: ", Printable(Between(said, "named \"", "\".")));
  }
  return Printable(said);
}

class Recorder {
 public:
  Recorder(const ConfigText& text, SourceMap* origins) : text_(text), origins_(origins) {}

  Origin At(Position position) const {
    if (position.line == 1) position.column = std::max(1, position.column + text_.column_shift);
    return {text_.source, text_.order, position};
  }

  void Record(const Message& message, const TextFormat::ParseInfoTree* tree,
              const std::string& base) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) RecordField(message, tree, base, field);
  }

 private:
  void RecordField(const Message& message, const TextFormat::ParseInfoTree* tree,
                   const std::string& base, const FieldDescriptor* field) {
    const Reflection* reflection = message.GetReflection();
    const std::string path = JoinPath(base, field->name());
    const bool repeated = field->is_repeated();
    const int size = repeated ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < size; ++i) {
      const int index = repeated ? i : -1;
      TextFormat::ParseLocation location = tree->GetLocation(field, index);
      // Of "[a, b]" the tree knows the beginning only.
      if (location.line < 0 && repeated) location = tree->GetLocation(field, 0);
      const Origin origin = At({location.line + 1, location.column + 1});
      if (i == 0) origins_->Set(path, origin);
      const std::string element = repeated ? absl::StrCat(path, "[", i, "]") : path;
      origins_->Set(element, origin);
      const TextFormat::ParseInfoTree* nested = tree->GetTreeForNested(field, index);
      if (!field->message_type() || !nested) continue;
      Record(repeated ? reflection->GetRepeatedMessage(message, field, i)
                      : reflection->GetMessage(message, field),
             nested, element);
    }
  }

  const ConfigText& text_;
  SourceMap* origins_;
};

LocatedError Explain(const RawError& raw, const Outline& outline, const Descriptor* root,
                     const std::string& base_path, const Recorder& recorder) {
  const NamedField named = FieldBefore(outline, raw.position);
  const size_t dot = named.path.rfind('.');
  const std::string name = named.path.substr(dot + 1);
  const FieldDescriptor* above =
      dot == std::string::npos ? nullptr : FindField(root, named.path.substr(0, dot));
  const Descriptor* parent = dot == std::string::npos ? root
                             : above                  ? above->message_type()
                                                      : nullptr;
  const FieldDescriptor* field = parent ? parent->FindFieldByName(name) : nullptr;
  const std::string path = JoinPath(base_path, named.path);
  std::string explained;
  if (field && absl::StrContains(raw.message, "is specified multiple times")) {
    explained = "given twice, give it once";
  } else if (field) {
    explained = ExplainValue(raw, field, FindRange(path), named.value);
  } else if (parent && absl::StrContains(raw.message, absl::StrCat("named \"", name, "\""))) {
    explained = NoSuchField(parent, name);
  }
  if (explained.empty()) return {recorder.At(raw.position), {"", ExplainSyntax(raw.message)}};
  return {recorder.At(named.name), {path, explained}};
}

}  // namespace

void ParseText(const ConfigText& text, Message* message, SourceMap* origins,
               std::vector<LocatedError>* errors) {
  Recorder recorder(text, origins);
  const Outline outline = MakeOutline(text.text);
  if (outline.too_deep.line > 0) {
    errors->push_back({recorder.At(outline.too_deep),
                       {"", absl::StrCat("nested deeper than ", kMaxDepth, " levels")}});
    return;
  }
  Collector collector;
  TextFormat::ParseInfoTree tree;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&tree);
  parser.AllowUnknownField(true);  // reported as warnings, so that all of them are found
  const bool parsed = parser.ParseFromString(text.text, message);
  const size_t num_errors = std::min(collector.errors().size(), kMaxErrors + 1);
  for (const RawError& raw : std::span(collector.errors()).first(num_errors)) {
    errors->push_back(Explain(raw, outline, message->GetDescriptor(), text.base_path, recorder));
  }
  if (parsed) recorder.Record(*message, &tree, text.base_path);
}

}  // namespace moebius
