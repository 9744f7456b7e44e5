// Questions about maps: what is there, and what has changed.
#include <algorithm>
#include <bit>
#include <set>

#include "pool/core.h"

namespace fairlead::pool {
namespace {

void add_range(std::vector<ByteRange>& ranges, uint64_t begin, uint64_t end, const ByteRange& within) {
  begin = std::max(begin, within.begin);
  end = std::min(end, within.end);
  if (begin >= end) return;
  if (!ranges.empty() && ranges.back().end == begin) {
    ranges.back().end = end;
  } else {
    ranges.push_back({begin, end});
  }
}

}  // namespace

// The leaves that a layer, or any of those above it up to (not with) `until`, has in the range.
std::vector<uint32_t> PoolCore::leaves_in(const Layer& layer, const Layer* until, ByteRange within) const {
  std::set<uint32_t> leaves;
  const uint64_t leaf_bytes = kEntriesPerPage << layout_.extent_shift();
  const uint64_t first = within.begin / leaf_bytes;
  const uint64_t end = (within.end + leaf_bytes - 1) / leaf_bytes;
  for (const Layer* each = &layer; each != until && each != nullptr; each = each->parent) {
    auto ref = std::ranges::lower_bound(each->leaves, first, {}, &LeafRef::leaf);
    for (; ref != each->leaves.end() && ref->leaf < end; ++ref) leaves.insert(ref->leaf);
  }
  return {leaves.begin(), leaves.end()};
}

Result<Object*> PoolCore::find_for_query(std::string_view name, ByteRange& within) const {
  Object* const object = find_object(name);
  if (object == nullptr) return fail(Code::kNotFound, "no replica or snapshot of this name");
  within.end = std::min(within.end, object->state.size_bytes);
  if (within.begin > within.end) return fail(Code::kOutOfRange, "the range begins beyond the end");
  return object;
}

Task<Result<std::vector<ByteRange>>> PoolCore::mapped(std::string name, ByteRange within) {
  const Mutex::Guard guard = co_await administration_.lock();
  FL_CO_TRY(Object* const object, find_for_query(name, within));
  std::vector<ByteRange> ranges;
  for (const uint32_t leaf : leaves_in(*object->layer, nullptr, within)) {
    FL_CO_TRY(const PagePin pin, co_await page(*object->layer, leaf));
    for (size_t index = 0; index < kEntriesPerPage; ++index) {
      const ShownEntry shown = pin->load(index);
      UnitSet units = shown.entry.place.value == 0 ? UnitSet() : shown.entry.held;
      if (const LowerParts* const parts = pin->lower(index); parts != nullptr) {
        for (const LowerPart& part : *parts) units |= part.units - shown.entry.held;
      }
      const uint64_t begin = (uint64_t{leaf} * kEntriesPerPage + index) << layout_.extent_shift();
      for_each_run(units, layout_.units(), [&](uint64_t first, uint64_t end) {
        add_range(ranges, begin + (first << layout_.unit_shift()), begin + (end << layout_.unit_shift()), within);
      });
    }
  }
  co_return ranges;
}

// Extents of the layers from `from` up to (not with) `until` whose entry satisfies the predicate.
template <typename Predicate>
Task<Result<std::vector<ByteRange>>> PoolCore::extents_where(Layer& from, const Layer* until, ByteRange within,
                                                             Predicate predicate) {
  std::vector<ByteRange> ranges;
  for (const uint32_t leaf : leaves_in(from, until, within)) {
    std::array<bool, kEntriesPerPage> found{};
    for (Layer* each = &from; each != until && each != nullptr; each = each->parent) {
      if (each->find(leaf) == nullptr) continue;
      FL_CO_TRY(const PagePin pin, co_await page(*each, leaf));
      for (size_t index = 0; index < kEntriesPerPage; ++index) {
        const Entry own = pin->own(index);
        if (!own.is_absent() && predicate(own)) found[index] = true;
      }
    }
    for (size_t index = 0; index < kEntriesPerPage; ++index) {
      if (!found[index]) continue;
      const uint64_t begin = (uint64_t{leaf} * kEntriesPerPage + index) << layout_.extent_shift();
      add_range(ranges, begin, begin + layout_.extent_bytes(), within);
    }
  }
  co_return ranges;
}

Task<Result<std::vector<ByteRange>>> PoolCore::changed_since(std::string name, Stamp stamp, ByteRange within) {
  const Mutex::Guard guard = co_await administration_.lock();
  FL_CO_TRY(Object* const object, find_for_query(name, within));
  const auto is_newer = [&](const Entry& entry) {
    const std::optional<Stamp> written = stamp_of(entry.stamp);
    return written && *written > stamp;
  };
  co_return co_await extents_where(*object->layer, nullptr, within, is_newer);
}

Task<Result<std::vector<ByteRange>>> PoolCore::changed_between(std::string older, std::string newer, ByteRange within) {
  const Mutex::Guard guard = co_await administration_.lock();
  FL_CO_TRY(Object* const object, find_for_query(newer, within));
  const Object* const base = find_object(older);
  if (base == nullptr) co_return fail(Code::kNotFound, "no snapshot of this name");
  const Layer* above = object->layer;
  while (above != nullptr && above != base->layer) above = above->parent;
  if (above == nullptr) co_return fail(Code::kInvalidArgument, "the newer one does not descend from the older one");
  // What holds nothing shows what the parent has.
  const auto differs = [](const Entry& entry) { return entry.held.any(); };
  co_return co_await extents_where(*object->layer, base->layer, within, differs);
}

// A place of its layer is seen by others only through children that do not have all of the extent themselves.
Task<Result<uint64_t>> PoolCore::unique_bytes(std::string name) {
  const Mutex::Guard guard = co_await administration_.lock();
  const Object* const object = find_object(name);
  if (object == nullptr) co_return fail(Code::kNotFound, "no replica or snapshot of this name");
  Layer& layer = *object->layer;
  std::vector<Layer*> children;
  for (const auto& [id, each] : layers_) {
    if (each->parent == &layer) children.push_back(each.get());
  }
  uint64_t extents = 0;
  const std::vector<LeafRef> leaves = layer.leaves;
  for (const LeafRef& ref : leaves) {
    FL_CO_TRY(const PagePin own, co_await page(layer, ref.leaf));
    std::array<bool, kEntriesPerPage> is_seen{};
    for (Layer* const child : children) {
      const bool has_leaf = child->find(ref.leaf) != nullptr;
      PagePin theirs;
      if (has_leaf) {
        FL_CO_TRY(theirs, co_await page(*child, ref.leaf));
      }
      for (size_t index = 0; index < kEntriesPerPage; ++index) {
        const UnitSet hidden = has_leaf ? theirs->own(index).held : UnitSet();
        if ((own->own(index).held - hidden).any()) is_seen[index] = true;
      }
    }
    for (size_t index = 0; index < kEntriesPerPage; ++index) {
      if (own->own(index).place.value != 0 && !is_seen[index]) ++extents;
    }
  }
  co_return extents << layout_.extent_shift();
}

}  // namespace fairlead::pool
