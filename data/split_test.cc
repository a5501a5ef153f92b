#include "data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moebius {
namespace {

using Hashes = std::unordered_set<uint64_t>;
using testing::UnorderedElementsAre;

Hashes Held(const std::vector<DocumentInfo>& documents, double fraction, int64_t max_bytes = 0) {
  Hashes held_out;
  HoldOut(documents, fraction, max_bytes, held_out);
  return held_out;
}

TEST(HoldOut, TakesDocumentsInTheOrderOfTheirHashes) {
  const std::vector<DocumentInfo> documents = {{5, 40}, {9, 100}, {1, 30}, {7, 30}};
  EXPECT_THAT(Held(documents, 0.1), UnorderedElementsAre(1));
  EXPECT_THAT(Held(documents, 0.16), UnorderedElementsAre(1, 5));
  EXPECT_THAT(Held(documents, 0.16, 30), UnorderedElementsAre(1));
  EXPECT_THAT(Held(documents, 0), UnorderedElementsAre());
}

TEST(HoldOut, OneDistinctDocumentStays) {
  EXPECT_THAT(Held({{3, 1}, {4, 1}, {4, 1}}, 0.9), UnorderedElementsAre(3));
  EXPECT_THAT(Held({{4, 1}}, 0.9), UnorderedElementsAre());
}

TEST(HoldOut, WhatAnotherDomainHoldsOutCounts) {
  Hashes held_out = {8};
  HoldOut({{2, 10}, {6, 10}, {8, 10}, {9, 70}}, 0.1, 0, held_out);
  EXPECT_THAT(held_out, UnorderedElementsAre(2, 8));
}

void ExpectPieces(const std::string& document, size_t first_piece) {
  const auto pieces = CutDocument(document);
  std::string joined;
  for (size_t i = 0; i < pieces.size(); ++i) {
    joined += pieces[i];
    EXPECT_LE(pieces[i].size(), size_t{128} << 10);
    if (i + 1 < pieces.size()) {
      EXPECT_GE(pieces[i].size(), (size_t{64} << 10) - 3);
    }
  }
  EXPECT_EQ(joined, document);
  EXPECT_EQ(pieces[0].size(), first_piece);
}

TEST(CutDocument, AtParagraphsThenLinesThenCharacters) {
  constexpr size_t kPiece = 64 << 10;
  ExpectPieces(std::string(2 * kPiece, 'a'), 2 * kPiece);  // short enough
  ExpectPieces("", 0);
  std::string text(500000, 'a');
  ExpectPieces(text, kPiece);
  text[kPiece + 10] = '\n';
  ExpectPieces(text, kPiece + 11);
  text[kPiece + 500] = text[kPiece + 501] = '\n';
  ExpectPieces(text, kPiece + 502);
  std::string accents = "a";
  while (accents.size() < 300000) accents += "\xc3\xa9";
  ExpectPieces(accents, kPiece - 1);
}

}  // namespace
}  // namespace moebius
