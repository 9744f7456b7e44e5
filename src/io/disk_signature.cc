#include "io/disk_signature.h"

#include <blkid.h>
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

std::string signature_of(const std::string& path) {
  const Probe probe(blkid_new_probe_from_filename(path.c_str()));
  if (probe == nullptr) return {};
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
  blkid_probe_enable_partitions(probe.get(), 1);
  if (blkid_do_probe(probe.get()) != 0) return {};
  if (const std::string table = value_of(probe, "PTTYPE"); !table.empty()) {
    return with_article(table + " partition table");
  }
  const std::string type = value_of(probe, "TYPE");
  if (type.empty()) return {};
  const std::string label = value_of(probe, "LABEL");
  const std::string usage = value_of(probe, "USAGE");
  const std::string kind = usage == "filesystem" ? " file system" : usage == "raid" ? " member" : "";
  return with_article(type + kind) + (label.empty() ? "" : fmt::format(" (label {})", label));
}

}  // namespace fairlead
