#include <algorithm>
#include <limits>

#include "pool/byte_codec.h"
#include "pool/format.h"
#include "pool/format_object.h"

namespace fairlead::pool {
namespace {

constexpr Magic kMagic = make_magic("FLPOOLDR");
constexpr size_t kHeaderBytes = 96;
constexpr size_t kPageExtentBytes = 8;
constexpr size_t kLayerBytes = 12;  // without its leaves
constexpr size_t kLeafBytes = 16;
constexpr size_t kObjectLengthBytes = 2;
constexpr uint64_t kKnownIncompatible = 0;
constexpr uint64_t kLeavesMax = (uint64_t{1} << 32) / kEntriesPerPage;
// How many there are depends on the extents' size, which the directory does not know.
constexpr uint64_t kPagesPerExtentMax = kExtentBytesMax / kMapPageBytes;

struct Shape {
  Magic magic = kMagic;
  uint32_t version = kFormatVersion;
  uint64_t compatible = 0;
  uint64_t incompatible = 0;
  uint32_t page_extents = 0;
  uint32_t stamps = 0;
  uint32_t layers = 0;
  uint32_t objects = 0;
};

template <typename Io, typename Value, typename HeaderShape>
void header_fields(Io& io, Value& directory, HeaderShape& shape) {
  io.bytes(shape.magic);
  io.field(shape.version);
  io.reserved(4);
  io.field(shape.compatible);
  io.field(shape.incompatible);
  io.field(directory.pool_id);
  io.field(directory.sequence);
  io.field(directory.next_layer);
  io.field(directory.next_stamp);
  io.field(shape.page_extents);
  io.field(shape.stamps);
  io.field(shape.layers);
  io.field(shape.objects);
  io.reserved(16);
}

template <typename Io, typename Value>
void page_extent_fields(Io& io, Value& extent) {
  for (auto& place : extent.places) io.field(place);
}

template <typename Io, typename Value>
void leaf_fields(Io& io, Value& leaf) {
  io.field(leaf.leaf);
  io.field(leaf.address);
  io.field(leaf.crc);
  io.field(leaf.places);
}

template <typename Io, typename Value, typename Count>
void layer_fields(Io& io, Value& layer, Count& leaves) {
  io.field(layer.id);
  io.field(layer.parent);
  io.field(leaves);
}

// ---- What must hold

Result<void> check_page_extents(const Directory& directory) {
  std::vector<Place> places;
  for (const PageExtent& extent : directory.page_extents) {
    if (extent == PageExtent{}) continue;
    for (const Place place : extent.places) {
      if (place.value == 0) return fail(Code::kCorrupt, "directory: a page extent lacks one of its copies");
      places.push_back(place);
    }
  }
  std::ranges::sort(places);
  if (std::ranges::adjacent_find(places) != places.end()) {
    return fail(Code::kCorrupt, "directory: an extent holds map pages twice");
  }
  return {};
}

Result<void> check_stamps(const Directory& directory) {
  if (directory.next_stamp == 0) return fail(Code::kCorrupt, "directory: the next stamp's ordinal is zero");
  for (size_t i = 0; i < directory.stamps.size(); ++i) {
    FL_TRY_VOID(check_stamp(directory.stamps[i]));
    if (directory.stamps[i].ordinal.value >= directory.next_stamp) {
      return fail(Code::kCorrupt, "directory: a stamp's ordinal was not given out yet");
    }
    if (i > 0 && directory.stamps[i - 1].ordinal >= directory.stamps[i].ordinal) {
      return fail(Code::kCorrupt, "directory: the stamps are not ascending");
    }
  }
  return {};
}

Result<void> check_leaves(const Directory& directory, const LayerState& layer, std::vector<uint32_t>& addresses) {
  for (size_t i = 0; i < layer.leaves.size(); ++i) {
    const LeafRef& leaf = layer.leaves[i];
    if (leaf.leaf >= kLeavesMax)
      return fail(Code::kCorrupt, "directory: a leaf is behind the last extent there can be");
    if (i > 0 && layer.leaves[i - 1].leaf >= leaf.leaf) {
      return fail(Code::kCorrupt, "directory: a layer's leaves are not ascending");
    }
    if (leaf.places > kEntriesPerPage) return fail(Code::kCorrupt, "directory: a leaf has more than 256 places");
    if (leaf.address >= directory.page_extents.size() * kPagesPerExtentMax) {
      return fail(Code::kCorrupt, "directory: a leaf's page is in no page extent");
    }
    addresses.push_back(leaf.address);
  }
  return {};
}

// The index of the layer, or layers.size(). Requires: ascending ids.
size_t find_layer(const std::vector<LayerState>& layers, LayerId id) {
  const auto found = std::ranges::lower_bound(layers, id, {}, &LayerState::id);
  return found != layers.end() && found->id == id ? static_cast<size_t>(found - layers.begin()) : layers.size();
}

// Requires: ascending ids.
Result<void> check_parents(const std::vector<LayerState>& layers) {
  std::vector<size_t> parents(layers.size(), layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].parent.value == 0) continue;
    parents[i] = find_layer(layers, layers[i].parent);
    if (parents[i] == layers.size()) return fail(Code::kCorrupt, "directory: a layer's parent does not exist");
  }
  // Each layer belongs to the first walk that came by; a walk that meets itself goes in a circle.
  std::vector<size_t> walks(layers.size(), layers.size());
  for (size_t start = 0; start < layers.size(); ++start) {
    size_t at = start;
    while (at != layers.size() && walks[at] == layers.size()) {
      walks[at] = start;
      at = parents[at];
    }
    if (at != layers.size() && walks[at] == start) {
      return fail(Code::kCorrupt, "directory: layers are parents of each other in a circle");
    }
  }
  return {};
}

Result<void> check_layers(const Directory& directory) {
  if (directory.next_layer == 0) return fail(Code::kCorrupt, "directory: the next layer's id is zero");
  std::vector<uint32_t> addresses;
  for (size_t i = 0; i < directory.layers.size(); ++i) {
    const LayerState& layer = directory.layers[i];
    if (layer.id.value == 0 || layer.id.value >= directory.next_layer) {
      return fail(Code::kCorrupt, "directory: a layer's id is zero or was not given out yet");
    }
    if (i > 0 && directory.layers[i - 1].id >= layer.id) {
      return fail(Code::kCorrupt, "directory: the layers are not ascending");
    }
    FL_TRY_VOID(check_leaves(directory, layer, addresses));
  }
  std::ranges::sort(addresses);
  if (std::ranges::adjacent_find(addresses) != addresses.end()) {
    return fail(Code::kCorrupt, "directory: two leaves have one page");
  }
  return check_parents(directory.layers);
}

// Requires: stamps and layers passed.
Result<void> check_objects(const Directory& directory) {
  std::vector<std::string_view> names;
  std::vector<LayerId> layers;
  for (size_t i = 0; i < directory.objects.size(); ++i) {
    const ObjectState& object = directory.objects[i];
    FL_TRY_VOID(check_object(object));
    if (i > 0 && directory.objects[i - 1].id >= object.id) {
      return fail(Code::kCorrupt, "directory: the objects are not ascending");
    }
    if (find_layer(directory.layers, object.layer) == directory.layers.size()) {
      return fail(Code::kCorrupt, "directory: an object's layer does not exist");
    }
    if (object.stamp.value != 0 &&
        !std::ranges::binary_search(directory.stamps, object.stamp, {}, &StampRecord::ordinal)) {
      return fail(Code::kCorrupt, "directory: an object's stamp does not exist");
    }
    names.push_back(object.name);
    layers.push_back(object.layer);
  }
  std::ranges::sort(names);
  if (std::ranges::adjacent_find(names) != names.end()) {
    return fail(Code::kCorrupt, "directory: two objects have one name");
  }
  std::ranges::sort(layers);
  if (std::ranges::adjacent_find(layers) != layers.end()) {
    return fail(Code::kCorrupt, "directory: two objects have one layer");
  }
  return {};
}

Result<void> check(const Directory& directory) {
  if (directory.pool_id.is_nil()) return fail(Code::kCorrupt, "directory: the pool's id is nil");
  FL_TRY_VOID(check_page_extents(directory));
  FL_TRY_VOID(check_stamps(directory));
  FL_TRY_VOID(check_layers(directory));
  return check_objects(directory);
}

// ---- Bytes

size_t bytes_of(const Directory& directory) {
  size_t bytes =
      kHeaderBytes + directory.page_extents.size() * kPageExtentBytes + directory.stamps.size() * kStampRecordBytes;
  for (const LayerState& layer : directory.layers) bytes += kLayerBytes + layer.leaves.size() * kLeafBytes;
  for (const ObjectState& object : directory.objects) bytes += kObjectLengthBytes + encoded_bytes(object);
  return bytes;
}

uint32_t count_of(size_t size) {
  FL_CHECK(size <= std::numeric_limits<uint32_t>::max());
  return static_cast<uint32_t>(size);
}

// Makes `count` elements, unless there are not even bytes for them: hostile counts cost no memory.
template <typename T>
Result<void> resize(std::vector<T>& elements, uint32_t count, size_t bytes_each, const ByteReader& reader) {
  if (count > reader.remaining() / bytes_each) return fail(Code::kCorrupt, "directory: it ends too early");
  elements.resize(count);
  return {};
}

Result<void> decode_layer(ByteReader& reader, LayerState& layer) {
  uint32_t leaves = 0;
  layer_fields(reader, layer, leaves);
  FL_TRY_VOID(resize(layer.leaves, leaves, kLeafBytes, reader));
  for (LeafRef& leaf : layer.leaves) leaf_fields(reader, leaf);
  return {};
}

// Requires: the header was read; the counts are its.
Result<void> decode_tables(ByteReader& reader, const Shape& shape, Directory& directory) {
  FL_TRY_VOID(resize(directory.page_extents, shape.page_extents, kPageExtentBytes, reader));
  for (PageExtent& extent : directory.page_extents) page_extent_fields(reader, extent);
  FL_TRY_VOID(resize(directory.stamps, shape.stamps, kStampRecordBytes, reader));
  for (StampRecord& stamp : directory.stamps) stamp_fields(reader, stamp);
  FL_TRY_VOID(resize(directory.layers, shape.layers, kLayerBytes, reader));
  for (LayerState& layer : directory.layers) FL_TRY_VOID(decode_layer(reader, layer));
  if (shape.objects > reader.remaining()) return fail(Code::kCorrupt, "directory: it ends too early");
  for (uint32_t i = 0; i < shape.objects; ++i) {
    const auto bytes = reader.take(reader.take_integer<uint16_t>());
    if (reader.is_short()) break;
    FL_TRY(auto object, decode_object(bytes));
    directory.objects.push_back(std::move(object));
  }
  if (reader.is_short()) return fail(Code::kCorrupt, "directory: it ends too early");
  if (reader.remaining() != 0) return fail(Code::kCorrupt, "directory: bytes are left over behind it");
  return {};
}

}  // namespace

std::vector<std::byte> encode(const Directory& directory) {
  require_valid(check(directory));
  std::vector<std::byte> bytes(bytes_of(directory));
  ByteWriter writer(bytes);
  Shape shape;
  shape.page_extents = count_of(directory.page_extents.size());
  shape.stamps = count_of(directory.stamps.size());
  shape.layers = count_of(directory.layers.size());
  shape.objects = count_of(directory.objects.size());
  header_fields(writer, directory, shape);
  for (const PageExtent& extent : directory.page_extents) page_extent_fields(writer, extent);
  for (const StampRecord& stamp : directory.stamps) stamp_fields(writer, stamp);
  for (const LayerState& layer : directory.layers) {
    const uint32_t leaves = count_of(layer.leaves.size());
    layer_fields(writer, layer, leaves);
    for (const LeafRef& leaf : layer.leaves) leaf_fields(writer, leaf);
  }
  for (const ObjectState& object : directory.objects) {
    writer.field(static_cast<uint16_t>(encoded_bytes(object)));
    encode_object(writer, object);
  }
  FL_CHECK(writer.room() == 0);
  return bytes;
}

Result<Directory> decode_directory(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  Directory directory;
  Shape shape;
  header_fields(reader, directory, shape);
  if (shape.magic != kMagic) return fail(Code::kNotFound, "directory: none is here");
  if (reader.is_short()) return fail(Code::kCorrupt, "directory: it ends within its header");
  if (shape.version != kFormatVersion) return fail(Code::kNotSupported, "directory: another version of the format");
  if ((shape.incompatible & ~kKnownIncompatible) != 0) {
    return fail(Code::kNotSupported, "directory: the pool uses a feature that this version does not know");
  }
  if (reader.has_reserved() && shape.compatible == 0) {
    return fail(Code::kCorrupt, "directory: reserved room is not zero");
  }
  FL_TRY_VOID(decode_tables(reader, shape, directory));
  FL_TRY_VOID(check(directory));
  return directory;
}

}  // namespace fairlead::pool
