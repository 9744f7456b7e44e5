#include "mirror/types.h"

#include <fmt/format.h>

namespace fairlead::mirror {
namespace {

// Enough of an id to tell it from others in a line for people.
std::string brief(const Uuid& id) { return to_string(id).substr(0, 8); }

}  // namespace

std::string to_string(const Term& term) { return fmt::format("{}/{}", term.number, brief(term.writer)); }

std::string to_string(const Stamp& stamp) { return fmt::format("{}:{}", to_string(stamp.term), stamp.generation); }

std::string to_string(const MemberSet& members) {
  std::string text = "{";
  for (const ReplicaId& id : members.ids()) {
    if (text.size() > 1) text += ",";
    text += brief(id);
  }
  return text + "}";
}

std::string to_string(const Record& record) {
  return fmt::format("{} {} prior {}", to_string(record.at), to_string(record.members), to_string(record.prior));
}

}  // namespace fairlead::mirror
