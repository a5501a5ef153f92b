// What to prepare: plain values, as configs/data.proto says them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebius {

struct DomainSpec {
  std::string name;
  std::vector<std::string> files;  // patterns (data/text_reader.h)
};

struct TokenizerSpec {
  enum class Kind { kBytes, kBpe, kUnigram };  // the last two: SentencePiece, trained on the spot
  Kind kind = Kind::kBytes;
  int64_t vocab_size = 8192;  // of SentencePiece
  int64_t training_bytes =
      10000000;  // cap on what SentencePiece is trained on, all domains together
};

struct DataSpec {
  std::string folder;  // where the prepared data goes
  std::vector<DomainSpec> domains;
  TokenizerSpec tokenizer;
  double held_out_fraction = 0.05;       // of each domain's bytes
  int64_t held_out_max_bytes = 1000000;  // of each domain; 0: no cap
  uint64_t seed = 1;
  std::string text_key = "text";  // of JSONL records
};

}  // namespace moebius
