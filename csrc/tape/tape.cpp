#include "tape/tape.h"

#include <bit>
#include <limits>
#include <stdexcept>

namespace st::tape {
namespace {

constexpr std::size_t kPiece = 1 << 20;
constexpr std::size_t kSeal = 8;

std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3ull;
  }
  return hash;
}

void append_fixed(std::string& out, std::uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

std::uint64_t read_fixed(std::string_view bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) {
    value = value << 8 | static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(i)]);
  }
  return value;
}

}  // namespace

void Tape::mark(Mark mark) {
  if (piece_.size() >= kPiece) {
    full_bytes_ += piece_.size();
    full_.push_back(std::move(piece_));
    piece_ = {};
  }
  if (piece_.empty()) piece_.reserve(kPiece + kPiece / 16);
  piece_.push_back(static_cast<char>(mark));
}

void Tape::number(std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) piece_.push_back(static_cast<char>(value | 0x80));
  piece_.push_back(static_cast<char>(value));
}

void Tape::real(double value) { append_fixed(piece_, std::bit_cast<std::uint64_t>(value)); }

std::string Tape::copy() const {
  std::string out;
  out.reserve(size() + 64);
  for (const std::string& piece : full_) out += piece;
  return out += piece_;
}

void seal(std::string& recording) { append_fixed(recording, fnv1a(recording)); }

TapeReader::TapeReader(std::string_view bytes) : bytes_(bytes) {
  if (bytes.starts_with("spacetime.recording/1\n")) {
    fail("is spacetime.recording/1, of an older version: replay it with that version");
  }
  if (!bytes.starts_with(kRecordingHead)) {
    fail("is no spacetime.recording/2: it must begin with that line");
  }
  if (bytes.size() < kRecordingHead.size() + kSeal) fail("is cut off: has no end");
  bytes_.remove_suffix(kSeal);
  if (fnv1a(bytes_) != read_fixed(bytes.substr(bytes_.size()))) {
    place_ = bytes_.size();
    fail("the checksum does not match: cut off or altered");
  }
  place_ = kRecordingHead.size();
}

void TapeReader::fail(const std::string& problem) const {
  throw std::invalid_argument("recording: byte " + std::to_string(place_) + ": " + problem);
}

Mark TapeReader::peek() const {
  if (at_end()) fail("ends without an end record");
  return static_cast<Mark>(bytes_[place_]);
}

Mark TapeReader::mark() {
  const Mark found = peek();
  ++place_;
  return found;
}

std::uint64_t TapeReader::number(std::uint64_t most, const char* field) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (at_end()) fail(std::string(field) + ": is cut off");
    const auto byte = static_cast<std::uint8_t>(bytes_[place_++]);
    const std::uint64_t bits = byte & 0x7f;
    if (shift == 63 && bits > 1) break;
    value |= bits << shift;
    if (byte & 0x80) continue;
    if (value > most) fail(std::string(field) + ": at most " + std::to_string(most));
    return value;
  }
  fail(std::string(field) + ": is longer than 64 bits");
}

std::uint32_t TapeReader::small(const char* field) {
  return static_cast<std::uint32_t>(number(std::numeric_limits<std::uint32_t>::max(), field));
}

std::int64_t TapeReader::integer(std::int64_t least, std::int64_t most, const char* field) {
  const std::uint64_t bits = number(std::numeric_limits<std::uint64_t>::max(), field);
  const auto value = static_cast<std::int64_t>((bits >> 1) ^ (~(bits & 1) + 1));
  if (value < least || value > most) {
    fail(std::string(field) + ": from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

double TapeReader::real() {
  if (bytes_.size() - place_ < 8) fail("a number is cut off");
  const std::uint64_t bits = read_fixed(bytes_.substr(place_, 8));
  place_ += 8;
  return std::bit_cast<double>(bits);
}

std::uint64_t TapeReader::count(const char* field) { return number(bytes_.size() - place_, field); }

}  // namespace st::tape
