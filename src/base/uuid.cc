#include "base/uuid.h"

#include <algorithm>
#include <openssl/evp.h>
#include <vector>

#include "base/check.h"

namespace fairlead {
namespace {

Uuid with_version(Uuid uuid, uint8_t version) noexcept {
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0f) | (version << 4));
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3f) | 0x80);
  return uuid;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Uuid uuid_from_random(uint64_t high, uint64_t low) noexcept {
  Uuid uuid;
  for (size_t i = 0; i < 8; ++i) {
    uuid.bytes[i] = static_cast<uint8_t>(high >> (56 - 8 * i));
    uuid.bytes[8 + i] = static_cast<uint8_t>(low >> (56 - 8 * i));
  }
  return with_version(uuid, 4);
}

Uuid uuid_from_name(const Uuid& name_space, std::string_view name) {
  std::vector<uint8_t> input(name_space.bytes.begin(), name_space.bytes.end());
  input.insert(input.end(), name.begin(), name.end());
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  FL_CHECK(EVP_Digest(input.data(), input.size(), digest.data(), &size, EVP_sha1(), nullptr) == 1 && size >= 16);
  Uuid uuid;
  std::copy_n(digest.begin(), 16, uuid.bytes.begin());
  return with_version(uuid, 5);
}

Result<Uuid> parse_uuid(std::string_view text) {
  constexpr const char* kForm = "a UUID has the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  if (text.size() != 36) return fail(Code::kInvalidArgument, kForm);
  Uuid uuid;
  size_t nibble = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (text[i] != '-') return fail(Code::kInvalidArgument, kForm);
      continue;
    }
    const int digit = hex_digit(text[i]);
    if (digit < 0) return fail(Code::kInvalidArgument, kForm);
    uuid.bytes[nibble / 2] = static_cast<uint8_t>(uuid.bytes[nibble / 2] << 4 | digit);
    ++nibble;
  }
  return uuid;
}

std::string to_string(const Uuid& uuid) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (size_t i = 0; i < uuid.bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[uuid.bytes[i] >> 4];
    text += kDigits[uuid.bytes[i] & 15];
  }
  return text;
}

}  // namespace fairlead
