#include "configs/differences.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include "absl/strings/str_cat.h"
#include "configs/fields.h"
#include "configs/options.pb.h"

namespace moebius {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;
using ::google::protobuf::TextFormat;

namespace {

// The text of one value; doubles print so that they read back to the same bits.
std::string ValueText(const Message& message, const FieldDescriptor* field, int index) {
  std::string text;
  TextFormat::PrintFieldValueToString(message, field, index, &text);
  return text;
}

int Size(const Message& message, const FieldDescriptor* field) {
  return field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 1;
}

const Message& Element(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection* reflection = message.GetReflection();
  return index >= 0 ? reflection->GetRepeatedMessage(message, field, index)
                    : reflection->GetMessage(message, field);
}

void Compare(const Message& a, const Message& b, const std::string& base,
             std::vector<std::string>* paths) {
  for (int i = 0; i < a.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = a.GetDescriptor()->field(i);
    const std::string path = JoinPath(base, field->name());
    if (field->options().GetExtension(changes) == COST || path == "train.num_steps") continue;
    const int size = Size(a, field);
    if (size != Size(b, field)) {
      paths->push_back(path);
      continue;
    }
    for (int j = 0; j < size; ++j) {
      const int index = field->is_repeated() ? j : -1;
      const std::string here = index >= 0 ? absl::StrCat(path, "[", j, "]") : path;
      if (field->message_type()) {
        Compare(Element(a, field, index), Element(b, field, index), here, paths);
      } else if (ValueText(a, field, index) != ValueText(b, field, index)) {
        paths->push_back(here);
      }
    }
  }
}

// Micro-batches are layout, but for losses that are defined on them.
bool DependsOnMicroBatches(const RunConfig& config) {
  const BalanceConfig& balance = config.model().moe().balance();
  if (balance.global_counts() == BalanceConfig::RUNNING) return true;
  for (const BalanceLossConfig& loss : balance.loss()) {
    if (loss.scope() == BalanceLossConfig::MICRO_BATCH) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> ResultDifferences(const RunConfig& a, const RunConfig& b) {
  std::vector<std::string> paths;
  Compare(a, b, "", &paths);
  const bool differs = a.train().micro_batch_size() != b.train().micro_batch_size();
  if (differs && DependsOnMicroBatches(a)) paths.push_back("train.micro_batch_size");
  return paths;
}

}  // namespace moebius
