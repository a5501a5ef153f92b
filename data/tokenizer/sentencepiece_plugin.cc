#include "data/tokenizer/sentencepiece_plugin.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using sentencepiece::SentencePieceProcessor;

constexpr size_t kMaxSentenceBytes = 1 << 16;

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const SentencePieceTraining& training) : training_(training) { Fetch(); }
  bool done() const override { return next_ > training_.num_sentences; }
  void Next() override { Fetch(); }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void Fetch() {
    if (next_ < training_.num_sentences) {
      value_.assign(training_.sentences[next_].data, training_.sentences[next_].size);
    }
    ++next_;
  }
  const SentencePieceTraining& training_;
  size_t next_ = 0;
  std::string value_;
};

void Give(SentencePieceTextSink sink, void* context, const std::string& text) {
  sink(context, {text.data(), text.size()});
}

bool Train(const SentencePieceTraining* training, SentencePieceTextSink model,
           SentencePieceTextSink error, void* context) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", training->unigram ? "unigram" : "bpe"},
      {"vocab_size", std::to_string(training->vocab_size)},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"byte_fallback", "true"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"max_sentence_length", std::to_string(kMaxSentenceBytes)},
      {"num_threads", "1"},  // sums of the unigram model depend on it
      {"minloglevel", "2"},
  };
  Sentences sentences(*training);
  std::string result;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &result);
  Give(status.ok() ? model : error, context, status.ok() ? result : status.ToString());
  return status.ok();
}

const SentencePieceProcessor& Processor(const void* processor) {
  return *static_cast<const SentencePieceProcessor*>(processor);
}

void* Load(SentencePieceText model, SentencePieceTextSink error, void* context) {
  auto processor = std::make_unique<SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto({model.data, model.size});
  if (status.ok()) return processor.release();
  Give(error, context, status.ToString());
  return nullptr;
}

void Unload(void* processor) { delete static_cast<SentencePieceProcessor*>(processor); }

int NumPieces(const void* processor) { return Processor(processor).GetPieceSize(); }

int Separator(const void* processor) { return Processor(processor).eos_id(); }

SentencePieceKind Piece(const void* processor, int id, SentencePieceTextSink text, void* context) {
  const SentencePieceProcessor& pieces = Processor(processor);
  Give(text, context, pieces.IdToPiece(id));
  if (pieces.IsByte(id)) return kSentencePieceByte;
  const bool other = pieces.IsControl(id) || pieces.IsUnknown(id) || pieces.IsUnused(id);
  return other ? kSentencePieceOther : kSentencePieceText;
}

bool Encode(const void* processor, SentencePieceText text, SentencePieceIdSink ids, void* context) {
  std::vector<int> result;
  if (!Processor(processor).Encode({text.data, text.size}, &result).ok()) return false;
  ids(context, result.data(), result.size());
  return true;
}

}  // namespace

const SentencePieceApi* GetSentencePieceApi() {
  static constexpr SentencePieceApi kApi = {Train,     Load,  Unload, NumPieces,
                                            Separator, Piece, Encode};
  return &kApi;
}
