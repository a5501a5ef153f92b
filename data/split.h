// Which documents are held out of training.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace moebius {

// What the split needs to know of a document. `hash` is a function of its content and the seed, so
// exact duplicates share it and cannot be parted.
struct DocumentInfo {
  uint64_t hash;
  int64_t num_bytes;
};

// Adds the hashes of one domain's held-out documents to `held_out`: documents in the order of their
// hashes until they make `fraction` of the domain's bytes or, unless max_bytes is 0, max_bytes, the
// last one included. At least one distinct document stays for training. Nothing if `fraction` is 0.
void HoldOut(std::vector<DocumentInfo> documents, double fraction, int64_t max_bytes,
             std::unordered_set<uint64_t>& held_out);

// A document of more than 128 KiB in pieces of 64 to 128 KiB (the last one may be shorter), so that
// a domain of few long documents can be split too. Cuts after a paragraph where there is one, else
// after a line, else between characters. The pieces in a row are the document.
std::vector<std::string_view> CutDocument(std::string_view document);

}  // namespace moebius
