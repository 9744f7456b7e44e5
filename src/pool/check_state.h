// What a pool's maps and objects are once the directory and the journal have been read: as the checker keeps them, all
// in memory, and what must hold for them. Plain functions on values, any thread.
#pragma once

#include <array>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pool/check.h"
#include "pool/format.h"
#include "pool/layout.h"

namespace fairlead::pool {

// Writes findings into a report, up to kFindingsMax.
class FindingList {
 public:
  explicit FindingList(CheckReport& report) : report_(report) {}
  template <typename... Arguments>
  void damage(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    add(Severity::kDamage, fmt::format(format, std::forward<Arguments>(arguments)...));
  }
  template <typename... Arguments>
  void repair(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    add(Severity::kRepair, fmt::format(format, std::forward<Arguments>(arguments)...));
  }
  template <typename... Arguments>
  void oddity(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    add(Severity::kOddity, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

 private:
  void add(Severity severity, std::string text);
  CheckReport& report_;
};

class CheckedState {
 public:
  CheckedState(const Superblock& superblock, const Layout& layout, FindingList& findings)
      : superblock_(superblock), layout_(layout), findings_(findings) {}

  // As of the checkpoint. The pages of the layers come by load_page().
  void load(const Directory& directory);
  // A whole map page. Requires: a layer of the directory.
  void load_page(LayerId layer, const LeafRef& leaf, const MapBytes& page);
  void apply(Sequence batch, const Record& record);

  // Looks at everything, and fills in the report's layers, objects, stamps and extents.
  void verify(CheckReport& report);

  // "replica db", "snapshot db.1" or "layer 7".
  std::string name_of(LayerId layer) const;

 private:
  using Entries = MapEntries;
  struct LayerMap {
    LayerId parent;
    std::map<uint32_t, std::unique_ptr<Entries>> leaves;
  };
  // Who has a place.
  enum class OwnerKind : uint8_t { kMap, kPages, kDirectory };
  struct Owner {
    Place place;
    OwnerKind kind = OwnerKind::kMap;
    LayerId layer;       // of a map
    ExtentIndex extent;  // likewise; else the number in its list
    friend auto operator<=>(const Owner&, const Owner&) = default;
  };

  void apply_one(Sequence batch, const EntryRecord& record);
  void apply_one(Sequence batch, const LayerRecord& record);
  void apply_one(Sequence batch, const LayerRemoval& record);
  void apply_one(Sequence batch, const ObjectRecord& record);
  void apply_one(Sequence batch, const ObjectRemoval& record);
  void apply_one(Sequence batch, const StampRecord& record);
  void apply_one(Sequence batch, const RestampRecord& record);

  void verify_tree();
  void verify_objects();
  void verify_object(const ObjectState& object);
  void verify_entries(CheckReport& report);
  void verify_leaf(CheckedLayer& layer, const ObjectState* object, uint32_t leaf, const Entries& entries);
  void verify_owners(ExtentCounts& counts);
  std::string describe(const Owner& owner) const;
  const ObjectState* object_of(LayerId layer) const;

  const Superblock& superblock_;
  const Layout& layout_;
  FindingList& findings_;
  std::map<LayerId, LayerMap> layers_;
  std::map<Uuid, ObjectState> objects_;
  std::map<StampOrdinal, StampRecord> stamps_;
  std::map<LayerId, Uuid> object_by_layer_;  // made by verify()
  std::vector<PageExtent> page_extents_;
  uint64_t next_stamp_ = 1;
  std::vector<Owner> owners_;
};

}  // namespace fairlead::pool
