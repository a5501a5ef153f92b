#include "configs/text_parser.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "configs/fields.h"

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

// Where the name of a field stands in a text, and the names above it.
struct NamedField {
  Position position;
  std::string path;  // without indices, from the message that the text fills
};

// The field names of a text in order, and whether braces or brackets nest too deep.
struct Outline {
  std::vector<NamedField> fields;
  Position too_deep;  // where; line 0: nowhere
};

bool Opens(const std::string& token) { return token == "{" || token == "<" || token == "["; }
bool Closes(const std::string& token) { return token == "}" || token == ">" || token == "]"; }

Outline MakeOutline(const std::string& text) {
  ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  Collector ignored;
  Tokenizer tokenizer(&stream, &ignored);
  tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
  tokenizer.set_require_space_after_number(false);
  Outline outline;
  std::vector<std::string> open;  // the path at each open brace or bracket
  std::string last_name;
  while (tokenizer.Next()) {
    const std::string& token = tokenizer.current().text;
    const Tokenizer::Token& before = tokenizer.previous();
    const bool names_field = token == ":" || token == "{" || token == "<";
    if (names_field && before.type == Tokenizer::TYPE_IDENTIFIER) {
      last_name = JoinPath(open.empty() ? "" : open.back(), before.text);
      outline.fields.push_back({{before.line + 1, before.column + 1}, last_name});
    }
    if (Opens(token)) open.push_back(last_name);
    if (Closes(token) && !open.empty()) {
      last_name = open.back();
      open.pop_back();
    }
    if (open.size() > kMaxDepth) {
      outline.too_deep = {tokenizer.current().line + 1, tokenizer.current().column + 1};
      break;
    }
  }
  return outline;
}

// The last field whose name begins before `position`. protobuf reports most errors at the token
// after the culprit.
NamedField FieldBefore(const Outline& outline, const Position& position) {
  const auto after = std::partition_point(
      outline.fields.begin(), outline.fields.end(), [&](const NamedField& field) {
        return std::pair(field.position.line, field.position.column) <
               std::pair(position.line, position.column);
      });
  return after == outline.fields.begin() ? NamedField{position, ""} : *std::prev(after);
}

// The last "quoted" part of a message of protobuf.
std::string Between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t begin = text.find(from);
  if (begin == std::string::npos) return "";
  const size_t end = text.find(to, begin + from.size());
  return text.substr(begin + from.size(), end - begin - from.size());
}

// What protobuf said about the field `name` of `parent` (null when unknown), in our words; "" when
// it is not about a field.
std::string Explain(const std::string& said, const Descriptor* parent, const std::string& name) {
  const FieldDescriptor* field = parent ? parent->FindFieldByName(name) : nullptr;
  if (absl::StrContains(said, "has no field named") && parent) return NoSuchField(parent, name);
  if (absl::StrContains(said, "is specified multiple times")) return "given twice, give it once";
  if (!field) return "";
  const std::string allowed = absl::StrCat(", must be ", AllowedValues(field));
  if (absl::StartsWith(said, "Unknown enumeration value")) {
    return NoSuchValue(field->enum_type(), Between(said, "value of \"", "\" for"));
  }
  if (absl::StartsWith(said, "Integer out of range")) {
    return absl::StrCat(Between(said, "(", ")"), " is out of range", allowed);
  }
  if (absl::StartsWith(said, "Invalid value for boolean")) {
    return absl::StrCat(Between(said, "Value: \"", "\"."), " is not allowed", allowed);
  }
  for (const char* type : {"integer", "double", "string", "\"{\""}) {
    const std::string expected = absl::StrCat("Expected ", type, ", ");
    if (!absl::StartsWith(said, expected)) continue;
    const std::string found(absl::StripPrefix(said, expected));  // `got: x` or `found "x".`
    return absl::StrCat(absl::CHexEscape(found.substr(0, 60)), allowed);
  }
  return "";
}

// What protobuf said about the text itself.
std::string ExplainSyntax(const std::string& said) {
  if (absl::StrContains(said, "control characters")) {
    return "unprintable character, a config is plain text";
  }
  if (absl::EndsWith(said, "got: ")) return "the text ends too early, is a closing } missing?";
  return absl::CHexEscape(said);
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
      const TextFormat::ParseLocation location = tree->GetLocation(field, index);
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

LocatedError Located(const RawError& raw, const Outline& outline, const Descriptor* root,
                     const std::string& base_path, const Recorder& recorder) {
  const NamedField field = FieldBefore(outline, raw.position);
  const size_t dot = field.path.rfind('.');
  const Descriptor* parent = root;
  if (dot != std::string::npos) {
    const FieldDescriptor* above = FindField(root, field.path.substr(0, dot));
    parent = above ? above->message_type() : nullptr;
  }
  const std::string explained = Explain(raw.message, parent, field.path.substr(dot + 1));
  if (explained.empty()) return {recorder.At(raw.position), {"", ExplainSyntax(raw.message)}};
  return {recorder.At(field.position), {JoinPath(base_path, field.path), explained}};
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
  parser.ParseFromString(text.text, message);
  for (const RawError& raw : collector.errors()) {
    errors->push_back(Located(raw, outline, message->GetDescriptor(), text.base_path, recorder));
  }
  recorder.Record(*message, &tree, text.base_path);
}

}  // namespace moebius
