// PoolLoad: changes of objects and of the pool, beside the requests.
#include <algorithm>
#include <fmt/format.h>

#include "block/disk.h"
#include "tests/support/pool_load.h"

namespace fairlead::test {

using pool::ObjectInfo;
using pool::ObjectKind;
using pool::Pool;
using pool::Stamp;

namespace {

constexpr Duration kLook{100'000};
constexpr int kLooksMax = 100'000;  // 10 s of virtual time

}  // namespace

// While it lives, the object is busy and the load is doing that.
class PoolLoad::Mark {
 public:
  Mark(PoolLoad& load, uint64_t epoch, ObjectRef object, Doing doing)
      : load_(load), epoch_(epoch), object_(std::move(object)), count_(load.doing_[static_cast<size_t>(doing)]) {
    ++count_;
    if (object_ != nullptr) object_->is_busy = true;
  }
  ~Mark() {
    if (load_.model_.epoch() != epoch_) return;
    --count_;
    if (object_ != nullptr) object_->is_busy = object_->is_closing = false;
  }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

 private:
  PoolLoad& load_;
  const uint64_t epoch_;
  const ObjectRef object_;
  uint32_t& count_;
};

Task<void> PoolLoad::administrator(uint64_t epoch, uint64_t seed) {
  sim::Prng random(seed);
  for (uint32_t i = 0; i < plan_.changes && is_alive(epoch); ++i) {
    co_await change_something(epoch, random);
    if (random.coin()) co_await sleep(node_.shard(0).reactor, random.between(Duration(1), Duration(20'000'000)));
  }
  --running_;
}

Task<void> PoolLoad::change_something(uint64_t epoch, sim::Prng& random) {
  const uint64_t kind = random.below(100);
  const bool may_add = model_.objects().size() + creating_ < plan_.objects_max;
  ObjectRef object = pick(random, true);
  if (object == nullptr || (kind < 15 && may_add)) {
    if (may_add) co_await create(epoch, random);
    co_return;
  }
  const bool is_replica = object->facts.kind == ObjectKind::kReplica;
  if (kind < 45 && may_add) {
    if (is_replica) {
      co_await snapshot(epoch, object);
    } else {
      co_await clone(epoch, object, random);
    }
  } else if (kind < 60) {
    // The fuller the list, the more goes.
    if (model_.objects().size() > 1 + random.below(plan_.objects_max)) co_await remove(epoch, object);
  } else if (kind < 70) {
    if (is_replica) co_await resize(epoch, object, random);
  } else if (kind < 78) {
    co_await change(epoch, object, random);
  } else if (kind < 84) {
    if (is_replica) co_await (random.coin() ? begin_generation(epoch, object) : restamp(epoch, object, random));
  } else if (kind < 92) {
    co_await ask(epoch, object, random);
  } else {
    co_await look_after_pool(epoch, random);
  }
}

template <typename T>
void PoolLoad::end_change(uint64_t epoch, ModelChange& change, const Result<T>& result, const char* what, Uuid id) {
  if (!is_alive(epoch)) return;
  note_end(fmt::format("{} (before {} bytes, then {})", what, change.before ? change.before->size_bytes : 0,
                       change.after ? change.after->size_bytes : 0)
               .c_str(),
           change.name + (change.from ? " of " + change.from->name : ""),
           result ? Result<void>() : std::unexpected(result.error()));
  if (result) return model_.done(change, epoch, id);
  model_.failed(change, epoch);
  if (result.error().code == Code::kNoSpace && !plan_.is_roomy) {
    ++refusals_;
    return;
  }
  model_.fail(fmt::format("{} of {}: {}", what, change.name, to_string(result.error())));
}

uint64_t PoolLoad::draw_size(sim::Prng& random) const {
  // Disks with blocks of 4 KiB may come later.
  return random.skewed(1, plan_.object_bytes_max / 4096) * 4096;
}

Task<void> PoolLoad::create(uint64_t epoch, sim::Prng& random) {
  pool::ReplicaOptions options;
  options.name = next_name("r");
  options.size_bytes = draw_size(random);
  options.is_thick = random.one_in(4);
  options.id = random.uuid();
  if (random.coin()) options.volume_id = random.uuid();
  if (random.coin()) options.labels = {{"app", "shop"}, {"zone", std::to_string(random.below(3))}};
  ObjectFacts facts{.id = options.id,
                    .kind = ObjectKind::kReplica,
                    .is_thick = options.is_thick,
                    .size_bytes = options.size_bytes,
                    .origin = {},
                    .volume_id = options.volume_id,
                    .labels = {},
                    .properties = {}};
  for (const pool::Label& label : options.labels) facts.labels[label.key] = label.value;
  ModelChange change = model_.begin_create(options.name, facts);
  ++creating_;
  const Mark mark(*this, epoch, nullptr, Doing::kChange);
  const bool is_thick = options.is_thick;
  const Result<Uuid> made = co_await pool_->create_replica(std::move(options));
  if (!is_alive(epoch)) co_return;
  --creating_;
  // A thick one needs all of its room at once.
  if (!made && made.error().code == Code::kNoSpace && is_thick) co_return model_.failed(change, epoch);
  end_change(epoch, change, made, "create");
}

Task<void> PoolLoad::snapshot(uint64_t epoch, ObjectRef replica) {
  ModelChange change = model_.begin_snapshot(replica, next_name("s"));
  ++creating_;
  const Mark mark(*this, epoch, replica, Doing::kSnapshot);
  const Result<Uuid> made = co_await pool_->snapshot(replica->name, change.name);
  if (!is_alive(epoch)) co_return;
  --creating_;
  end_change(epoch, change, made, "snapshot", made ? *made : Uuid{});
}

Task<void> PoolLoad::clone(uint64_t epoch, ObjectRef snapshot, sim::Prng& random) {
  pool::ReplicaOptions options;
  options.name = next_name("c");
  options.size_bytes = snapshot->facts.size_bytes + (random.coin() ? 0 : draw_size(random));
  options.id = random.uuid();
  ObjectFacts facts{.id = options.id,
                    .kind = ObjectKind::kReplica,
                    .is_thick = false,
                    .size_bytes = options.size_bytes,
                    .origin = snapshot->facts.id,
                    .volume_id = {},
                    .labels = {},
                    .properties = {}};
  ModelChange change = model_.begin_clone(snapshot, options.name, facts);
  ++creating_;
  const Mark mark(*this, epoch, snapshot, Doing::kChange);
  const Result<Uuid> made = co_await pool_->clone(snapshot->name, std::move(options));
  if (!is_alive(epoch)) co_return;
  --creating_;
  end_change(epoch, change, made, "clone");
}

// Waits until no worker has a device of it. False: the life is over, or workers hold on.
Task<bool> PoolLoad::close_devices(uint64_t epoch, ObjectRef object) {
  object->is_closing = true;
  for (int i = 0; i < kLooksMax && is_alive(epoch) && object->users > 0; ++i) {
    co_await sleep(node_.shard(0).reactor, kLook);
  }
  co_return is_alive(epoch) && object->users == 0;
}

Task<void> PoolLoad::remove(uint64_t epoch, ObjectRef object) {
  const Mark mark(*this, epoch, object, Doing::kRemove);
  if (!co_await close_devices(epoch, object)) co_return;
  ModelChange change = model_.begin_remove(object);
  Result<void> removed;
  // The last devices' ends are on their way from other shards.
  for (int i = 0; i < kLooksMax && is_alive(epoch); ++i) {
    removed = co_await pool_->remove(object->name);
    if (removed || removed.error().code != Code::kBusy) break;
    co_await sleep(node_.shard(0).reactor, kLook);
  }
  if (!removed && removed.error().code == Code::kNoSpace) {
    if (is_alive(epoch)) model_.fail(fmt::format("remove of {}: a full pool does not let go", object->name));
    co_return;
  }
  end_change(epoch, change, removed, "remove");
}

Task<void> PoolLoad::resize(uint64_t epoch, ObjectRef object, sim::Prng& random) {
  const uint64_t size = draw_size(random);
  if (size < object->facts.size_bytes) co_return co_await shrink(epoch, object, size);
  const Mark mark(*this, epoch, object, Doing::kChange);
  ObjectFacts after = object->facts;
  after.size_bytes = size;
  ModelChange change = model_.begin_change(object, after);
  const Result<void> resized = co_await pool_->resize(object->name, size, Pool::Shrink::kRefuse);
  if (is_alive(epoch) && !resized && resized.error().code == Code::kNoSpace && object->facts.is_thick) {
    co_return model_.failed(change, epoch);
  }
  end_change(epoch, change, resized, "resize");
}

Task<void> PoolLoad::shrink(uint64_t epoch, ObjectRef object, uint64_t size_bytes) {
  const Mark mark(*this, epoch, object, Doing::kChange);
  const Result<void> refused = co_await pool_->resize(object->name, size_bytes, Pool::Shrink::kRefuse);
  if (!is_alive(epoch)) co_return;
  if (refused) co_return model_.fail(fmt::format("{} shrank without being told", object->name));
  if (!co_await close_devices(epoch, object)) co_return;
  ObjectFacts after = object->facts;
  after.size_bytes = size_bytes;
  ModelChange change = model_.begin_change(object, after);
  // Who cuts a shrink off may find some of the rest gone.
  const uint32_t block = model_.block_bytes();
  const ModelWrite loss = model_.begin_write(
      object, {size_bytes / block, (object->facts.size_bytes - size_bytes) / block}, PoolModel::Bytes::kZeroes);
  Result<void> shrunk;
  for (int i = 0; i < kLooksMax && is_alive(epoch); ++i) {
    shrunk = co_await pool_->resize(object->name, size_bytes, Pool::Shrink::kLoseData);
    if (shrunk || shrunk.error().code != Code::kBusy) break;
    co_await sleep(node_.shard(0).reactor, kLook);
  }
  if (is_alive(epoch)) model_.write_failed(loss);
  end_change(epoch, change, shrunk, "shrink");
}

Task<void> PoolLoad::change(uint64_t epoch, ObjectRef object, sim::Prng& random) {
  const Mark mark(*this, epoch, object, Doing::kChange);
  pool::Changes changes;
  changes.labels = {{"app", random.one_in(3) ? "" : std::to_string(random.below(1000))}};
  if (random.coin()) changes.labels.push_back({"tier", random.coin() ? "hot" : ""});
  std::vector<std::byte> value(random.one_in(3) ? 0 : random.skewed(1, 900));
  for (std::byte& byte : value) byte = static_cast<std::byte>(random.below(256));
  changes.properties = {{static_cast<uint16_t>(1 + random.below(3)), value}};
  if (random.one_in(4)) changes.volume_id = random.uuid();
  ModelChange change = model_.begin_change(object, changed(object->facts, changes));
  end_change(epoch, change, co_await pool_->change(object->name, std::move(changes)), "change");
}

Task<void> PoolLoad::begin_generation(uint64_t epoch, ObjectRef object) {
  const Mark mark(*this, epoch, object, Doing::kChange);
  const Stamp stamp{.term = next_term_++, .writer = object->facts.id, .generation = next_term_};
  ModelChange change = model_.begin_generation(object, stamp);
  const Result<void> begun = co_await pool_->begin_generation(object->name, stamp);
  end_change(epoch, change, begun, "begin_generation");
  if (!begun || !is_alive(epoch)) co_return;
  const Result<void> again = co_await pool_->begin_generation(object->name, stamp);
  if (is_alive(epoch) && (again || again.error().code != Code::kInvalidArgument)) {
    model_.fail("a generation began that is not newer");
  }
}

// Beside writes of the same extents.
Task<void> PoolLoad::restamp(uint64_t epoch, ObjectRef object, sim::Prng& random) {
  const Mark mark(*this, epoch, object, Doing::kChange);
  const bool has_generation = object->stamp.has_value();
  std::vector<ModelStamping> stampings;
  std::vector<pool::ByteRange> ranges;
  for (uint64_t i = 0; i < 1 + random.below(4); ++i) {
    const Span span = draw_span(object->facts.size_bytes, 512, random);
    ranges.push_back({span.offset, span.offset + span.length});
    stampings.push_back(model_.begin_stamping(object, ranges.back()));
  }
  const Result<void> stamped = co_await pool_->restamp(object->name, std::move(ranges));
  if (!is_alive(epoch)) co_return;
  note_end("restamp", object->name, stamped);
  if (stamped) {
    for (const ModelStamping& stamping : stampings) model_.stamping_done(stamping);
  } else if (!has_generation && stamped.error().code == Code::kInvalidArgument) {
    co_return;
  } else if (stamped.error().code == Code::kNoSpace && !plan_.is_roomy) {
    ++refusals_;
  } else {
    model_.fail(fmt::format("restamp of {}: {}", object->name, to_string(stamped.error())));
  }
}

// While others work on it, any answer is right; but there is one.
Task<void> PoolLoad::ask(uint64_t epoch, ObjectRef object, sim::Prng& random) {
  const Mark mark(*this, epoch, object, Doing::kChange);
  const Result<ObjectInfo> info = pool_->find(object->name);
  if (!info) co_return model_.fail(fmt::format("{}: not found", object->name));
  model_.compare(*object, *info);
  const pool::ByteRange all{0, object->facts.size_bytes};
  Result<void> result;
  switch (random.below(3)) {
    case 0:
      if (const auto mapped = co_await pool_->mapped(object->name, all); !mapped)
        result = std::unexpected(mapped.error());
      break;
    case 1:
      if (const auto since = co_await pool_->changed_since(object->name, {}, all); !since) {
        result = std::unexpected(since.error());
      }
      break;
    default:
      if (const auto unique = co_await pool_->unique_bytes(object->name); !unique) {
        result = std::unexpected(unique.error());
      }
  }
  if (is_alive(epoch) && !result) {
    model_.fail(fmt::format("query of {}: {}", object->name, to_string(result.error())));
  }
}

Task<void> PoolLoad::add_disk(uint64_t epoch) {
  const Mark mark(*this, epoch, nullptr, Doing::kAddDisk);
  adding_ = plan_.spare.back();
  plan_.spare.pop_back();
  auto source = open_disk_source(node_.shard(0), {.path = adding_});
  if (!source) co_return;
  const uint64_t before = pool_->statistics().capacity_bytes;
  const auto added = co_await pool_->add_disk({adding_, std::move(*source)}, pool::Blank::kRequired);
  if (!is_alive(epoch)) co_return;
  if (!added)
    co_return model_.fail(fmt::format("add_disk: {} {}", to_string(added.error().error), added.error().detail));
  plan_.disks.push_back(adding_);
  adding_.clear();
  if (pool_->statistics().capacity_bytes <= before) model_.fail("a disk was added and there is no more room");
}

Task<void> PoolLoad::look_after_pool(uint64_t epoch, sim::Prng& random) {
  const uint64_t kind = random.below(10);
  if (kind < 5) {
    const Mark mark(*this, epoch, nullptr, Doing::kCheckpoint);
    const uint64_t began = model_.begin_flush();
    const Result<void> made = co_await pool_->checkpoint();
    if (!is_alive(epoch)) co_return;
    if (!made) co_return model_.fail(fmt::format("checkpoint: {}", to_string(made.error())));
    model_.all_flushed(epoch, began);
  } else if (kind < 8) {
    const Mark mark(*this, epoch, nullptr, Doing::kSettle);
    const Result<void> settled = co_await pool_->settle();
    if (is_alive(epoch) && !settled) model_.fail(fmt::format("settle: {}", to_string(settled.error())));
  } else if (kind < 9) {
    // Grows one disk, or none, then takes what there is.
    if (random.coin()) {
      sim::SimDevice& disk = *world_.find_disk(node_, plan_.disks[random.below(plan_.disks.size())]);
      disk.resize(disk.size_bytes() + random.between(1, 4) * plan_.extent_bytes);
    }
    const Result<uint64_t> grown = co_await pool_->grow();
    if (is_alive(epoch) && !grown) model_.fail(fmt::format("grow: {}", to_string(grown.error())));
  } else if (!plan_.spare.empty() && adding_.empty()) {
    co_await add_disk(epoch);
  }
}

}  // namespace fairlead::test
