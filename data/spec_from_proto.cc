#include "data/spec_from_proto.h"

namespace moebius {
namespace {

TokenizerSpec::Kind KindOf(const TokenizerConfig& config) {
  if (config.kind() == TokenizerConfig::BYTES) return TokenizerSpec::Kind::kBytes;
  return config.model_type() == TokenizerConfig::BPE ? TokenizerSpec::Kind::kBpe
                                                     : TokenizerSpec::Kind::kUnigram;
}

}  // namespace

DataSpec DataSpecFromProto(const DataConfig& config, const std::string& folder) {
  DataSpec spec;
  spec.folder = folder;
  for (const DomainConfig& domain : config.domains()) {
    spec.domains.push_back({domain.name(), {domain.files().begin(), domain.files().end()}});
  }
  spec.tokenizer = {KindOf(config.tokenizer()), config.tokenizer().vocab_size(),
                    config.tokenizer().training_bytes()};
  spec.held_out_fraction = config.held_out_fraction();
  spec.held_out_max_bytes = config.held_out_max_bytes();
  spec.seed = config.seed();
  spec.text_key = config.text_key();
  return spec;
}

}  // namespace moebius
