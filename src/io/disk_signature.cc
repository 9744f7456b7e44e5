#include "io/disk_signature.h"

#include <blkid.h>
#include <cerrno>
#include <fmt/format.h>
#include <memory>
#include <string_view>

namespace fairlead {
namespace {

struct ProbeFree {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, ProbeFree>;

std::string value_of(const Probe& probe, const char* name) {
  const char* value = nullptr;
  if (blkid_probe_lookup_value(probe.get(), name, &value, nullptr) != 0 || value == nullptr) return {};
  return value;
}

std::string with_article(std::string_view what) {
  const bool is_vowel = std::string_view("aeiou").find(what.front()) != std::string_view::npos;
  return fmt::format("{} {}", is_vowel ? "an" : "a", what);
}

}  // namespace

Result<std::optional<Signature>> look_for_signature(const std::string& path) {
  errno = 0;
  const Probe probe(blkid_new_probe_from_filename(path.c_str()));
  if (probe == nullptr) return fail_errno(errno == 0 ? EIO : errno, "look into it");
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
  blkid_probe_enable_partitions(probe.get(), 1);
  const int found = blkid_do_safeprobe(probe.get());
  if (found == 1) return std::nullopt;
  if (found == -2) return Signature{.is_ambiguous = true};
  if (found < 0) return fail_errno(errno == 0 ? EIO : errno, "look into it");
  return Signature{.table = value_of(probe, "PTTYPE"),
                   .type = value_of(probe, "TYPE"),
                   .usage = value_of(probe, "USAGE"),
                   .label = value_of(probe, "LABEL")};
}

std::string signature_of(const std::string& path) {
  const Result<std::optional<Signature>> found = look_for_signature(path);
  if (!found || !*found) return {};
  const Signature& signature = **found;
  if (signature.is_ambiguous) return "signatures of several kinds";
  if (!signature.table.empty()) return with_article(signature.table + " partition table");
  if (signature.type.empty()) return {};
  const char* const kind = signature.usage == "filesystem" ? " file system"
                           : signature.usage == "raid"     ? " member"
                                                           : "";
  return with_article(signature.type + kind) +
         (signature.label.empty() ? "" : fmt::format(" (label {})", signature.label));
}

}  // namespace fairlead
