#include "train/hugging_face/writer.h"

#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/files.h"
#include "train/checkpoint/safetensors.h"
#include "train/hugging_face/config_json.h"
#include "train/hugging_face/tensor_map.h"

namespace moebius {
namespace {

// The numbers of `value` in the exported type.
template <class To>
std::vector<To> Rounded(const Tensor& value) {
  std::vector<To> rounded(static_cast<size_t>(value.size()));
  const auto convert = [&](const auto* from) {
    for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = To(static_cast<float>(from[i]));
  };
  if (value.dtype() == DType::kF64) {
    convert(value.data<double>());
  } else {
    convert(value.data<float>());
  }
  return rounded;
}

template <class To>
absl::Status WriteParameter(const MappedParameter& parameter, const Tensor& value,
                            SafetensorsWriter& writer) {
  const std::vector<To> numbers = Rounded<To>(value);
  const size_t share = numbers.size() / parameter.tensors.size();
  for (size_t i = 0; i < parameter.tensors.size(); ++i) {
    const auto part = std::span(numbers).subspan(i * share, share);
    RETURN_IF_ERROR(writer.Write(parameter.tensors[i].name, std::as_bytes(part)));
  }
  return absl::OkStatus();
}

absl::Status WriteTensors(const std::vector<MappedParameter>& parameters, DType dtype,
                          const ParameterSource& source, const std::string& path) {
  std::vector<SafetensorsWriter::Description> descriptions;
  for (const MappedParameter& parameter : parameters) {
    for (const HuggingFaceTensor& tensor : parameter.tensors) {
      descriptions.push_back({.name = tensor.name, .dtype = dtype, .shape = tensor.shape});
    }
  }
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(path, descriptions, {{"format", "pt"}}));
  for (const MappedParameter& parameter : parameters) {
    ASSIGN_OR_RETURN(const Tensor value, source(parameter.name));
    if (value.shape() != parameter.shape) {
      return absl::FailedPreconditionError(
          absl::StrCat("parameter ", parameter.name, " is ", value.shape().ToString(),
                       ", by the model's config it must be ", parameter.shape.ToString()));
    }
    RETURN_IF_ERROR(dtype == DType::kBF16 ? WriteParameter<BF16>(parameter, value, writer)
                                          : WriteParameter<float>(parameter, value, writer));
  }
  return writer.Close();
}

}  // namespace

absl::Status WriteHuggingFace(const ModelConfig& model, const HuggingFaceExport& options,
                              const ParameterSource& source, const std::string& directory) {
  RETURN_IF_ERROR(CheckExpressible(model, options.layout));
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(directory, ": cannot be created"));
  }
  RETURN_IF_ERROR(WriteTensors(MapParameters(model, options.layout), options.dtype, source,
                               directory + "/model.safetensors"));
  return WriteFileAtomically(directory + "/config.json",
                             PrintHuggingFaceConfig(model, options.layout, options.dtype,
                                                    options.max_position_embeddings));
}

}  // namespace moebius
