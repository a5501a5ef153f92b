// What libmoebius_sentencepiece.so offers. It is a plugin with an interface of C, because
// SentencePiece carries a protobuf of its own that cannot share a process's symbols with ours, and
// a header that cannot share a source file with Abseil.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct SentencePieceText {
  const char* data;
  size_t size;
};

// Receives text that lives during the call only.
using SentencePieceTextSink = void (*)(void* context, SentencePieceText text);
using SentencePieceIdSink = void (*)(void* context, const int* ids, size_t count);

struct SentencePieceTraining {
  bool unigram;  // else BPE
  int64_t vocab_size;
  const SentencePieceText* sentences;  // valid UTF-8 without NUL, U+2581 and U+2585
  size_t num_sentences;
};

enum SentencePieceKind { kSentencePieceText, kSentencePieceByte, kSentencePieceOther };

struct SentencePieceApi {
  // Trains a lossless model and gives it to `model`; false and `error` otherwise.
  bool (*train)(const SentencePieceTraining* training, SentencePieceTextSink model,
                SentencePieceTextSink error, void* context);
  // A processor, or nullptr and `error`. Thread-safe from then on.
  void* (*load)(SentencePieceText model, SentencePieceTextSink error, void* context);
  void (*unload)(void* processor);
  int (*num_pieces)(const void* processor);
  int (*separator)(const void* processor);  // the end-of-sentence piece, or -1
  SentencePieceKind (*piece)(const void* processor, int id, SentencePieceTextSink text,
                             void* context);
  // False if the library fails.
  bool (*encode)(const void* processor, SentencePieceText text, SentencePieceIdSink ids,
                 void* context);
};

// The plugin's only symbol.
const SentencePieceApi* GetSentencePieceApi();
}
