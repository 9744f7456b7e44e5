// How extents are copied: from whom, in which order, how many at once.
#include <algorithm>
#include <utility>

#include "mirror/reign.h"

namespace fairlead::mirror {
namespace {

ByteRange range_of(uint64_t extent, uint64_t size_bytes) {
  return {extent * kExtentBytes, std::min((extent + 1) * kExtentBytes, size_bytes)};
}

// A medium that fails, not the way to it.
bool is_medium_error(const Error& error) { return error.code == Code::kIo || error.code == Code::kCorrupt; }

// Copies that are being read from a seat, for as long as one lives.
class Counted {
 public:
  explicit Counted(uint32_t& count) : count_(count) { ++count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --count_; }

 private:
  uint32_t& count_;
};

}  // namespace

// The one that is likely to be the first with the bytes; of several the local one, else the next in turn. What is known
// of the others fades, so that each is tried now and then.
Reign::Seat* Reign::next_source(const std::vector<Seat*>& not_these) {
  Seat* found = nullptr;
  for (size_t i = 0; i < seats_.size(); ++i) {
    Seat* const seat = seats_[(next_source_ + i) % seats_.size()].get();
    if (seat->standing != Standing::kMember || std::ranges::find(not_these, seat) != not_these.end()) continue;
    seat->read_takes -= seat->read_takes / 64;
    if (found == nullptr || seat->next_read_takes() < found->next_read_takes() ||
        (seat->next_read_takes() == found->next_read_takes() && seat->peer.link->is_local())) {
      found = seat;
    }
  }
  ++next_source_;
  return found;
}

// Of one session: what it has in a later one may not be what it had.
Task<Result<void>> Reign::read_from(Seat& seat, ByteRange range, std::span<std::byte> bytes) {
  const Counted counted(seat.sourcing);
  const uint64_t session = seat.prepared.session.number;
  const Copier::Device device = seat.device;
  const Instant began = home_.reactor.now();
  Result<void> read = co_await copier_.read(range, bytes, device);
  seat.read_takes += (home_.reactor.now() - began - seat.read_takes) / 8;
  if (read) note_piece(seat.peer, began);
  const bool is_same =
      seat.has_session && seat.prepared.session.number == session && seat.peer.link->connection() == seat.connection;
  if (read && !is_same) read = fail(Code::kConnectionLost, "the replica went while it was read");
  if (!read && !is_ending() && !is_medium_error(read.error())) lose(seat, session, read.error());
  co_return read;
}

// Who has everything is known while nobody writes there: from then on a member stays one that may be copied from, also
// when it is left out meanwhile.
Task<Result<void>> Reign::read_any(ByteRange range, std::span<std::byte> bytes, std::vector<Seat*> not_these) {
  std::vector<Slot> unreadable;
  Result<void> read = fail(Code::kUnreachable, "there is no member to copy from");
  while (!is_ending()) {
    Seat* const source = next_source(not_these);
    if (source == nullptr) co_return read;
    read = co_await read_from(*source, range, bytes);
    if (read) break;
    not_these.push_back(source);
    if (is_medium_error(read.error())) unreadable.push_back(source->peer.slot);
  }
  if (is_ending()) co_return fail(Code::kCancelled);
  for (const Slot slot : unreadable) repair_wanted(slot, range);
  co_return read;
}

// As the slowest of those that are there can bear.
uint64_t Reign::piece_bytes() const {
  uint64_t bytes = Copier::kPieceBytes;
  for (const auto& seat : seats_) {
    if (seat->has_session) bytes = std::min(bytes, seat->peer.piece_bytes);
  }
  return bytes;
}

void Reign::make_pieces_smaller(Peer& peer) {
  peer.piece_bytes = std::max(peer.piece_bytes / 4, Copier::kPieceBytesMin);
  peer.quick_pieces = 0;
}

void Reign::note_piece(Peer& peer, Instant began) const {
  constexpr uint32_t kQuickPieces = 256;
  if (home_.reactor.now() - began > options_.stall_limit / 32) {
    peer.quick_pieces = 0;
  } else if (++peer.quick_pieces >= kQuickPieces) {
    peer.quick_pieces = 0;
    peer.piece_bytes = std::min(2 * peer.piece_bytes, Copier::kPieceBytes);
  }
}

Task<Result<void>> Reign::copy(ByteRange range, std::vector<Seat*> to, std::byte* memory) {
  Copier::Lock lock(copier_, range);
  FL_CO_TRY_VOID(co_await lock.take(ending_));
  std::vector<InSession> sinks;
  for (Seat* const seat : to) {
    if (seat->has_session) sinks.push_back({seat, seat->prepared.session.number});
  }
  while (!range.empty() && !sinks.empty()) {
    const ByteRange piece = Copier::first_piece(range, piece_bytes());
    const std::span<std::byte> bytes(memory, piece.end - piece.begin);
    FL_CO_TRY_VOID(co_await read_any(piece, bytes, to));
    FL_CO_TRY_VOID(co_await write_piece(piece, bytes, sinks));
    range.begin = piece.end;
  }
  co_return Result<void>();
}

// Those of the sinks that are not what they were are none any more.
Task<Result<void>> Reign::write_piece(ByteRange piece, std::span<const std::byte> bytes,
                                      std::vector<InSession>& sinks) {
  std::erase_if(sinks, [this](const InSession& sink) { return !is_in(sink); });
  std::vector<Copier::Device> devices;
  for (const InSession& sink : sinks) devices.push_back(sink.seat->device);
  const Instant began = home_.reactor.now();
  const std::vector<Result<void>> written = co_await copier_.write(piece, bytes, std::move(devices));
  if (is_ending()) co_return fail(Code::kCancelled);
  for (size_t i = 0; i < sinks.size(); ++i) {
    if (written[i]) {
      note_piece(sinks[i].seat->peer, began);
    } else {
      lose(*sinks[i].seat, sinks[i].session, written[i].error());
    }
  }
  co_return Result<void>();
}

// ---- What a take-over has to level

void Reign::level_wanted(uint64_t extent) {
  if (!sides_.shared().unlevel.test(extent)) return;
  wanted_level_.push_back(extent);
  copies_.set_hurry(true);
}

// Those that someone waits for first.
std::optional<uint64_t> Reign::next_unlevel() {
  ExtentBits& unlevel = sides_.shared().unlevel;
  while (!wanted_level_.empty()) {
    const uint64_t extent = wanted_level_.front();
    wanted_level_.pop_front();
    if (unlevel.test(extent) && !leveling_.contains(extent)) return extent;
  }
  for (uint64_t at = unlevel.next(0); at < unlevel.extents(); at = unlevel.next(at + 1)) {
    if (!leveling_.contains(at)) return at;
  }
  return std::nullopt;
}

Task<void> Reign::level_worker() {
  const AlignedBytes memory = Copier::make_memory();
  while (!is_ending() && !must_renew_ && sides_.shared().unlevel.count() > leveling_.size()) {
    std::optional<CopyBudget::Place> place = co_await copies_.take(CopyBudget::Kind::kLevel, ending_);
    if (!place) co_return;
    const std::optional<uint64_t> extent = next_unlevel();
    copies_.set_hurry(!wanted_level_.empty());
    if (!extent) co_return;
    leveling_.insert(*extent);
    const bool is_level = co_await level(*extent, memory.get());
    leveling_.erase(*extent);
    place.reset();
    if (!is_level && !must_renew_) (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
  }
}

// False: not now, or not in this term.
Task<bool> Reign::level(uint64_t extent, std::byte* memory) {
  // Of all members in force, one that lacks it may be what the next take-over levels from: what was read here would be
  // gone again. Until a record without such a one is in force the extent is not level.
  std::vector<InSession> members;
  for (const ReplicaId& id : in_force_.members.ids()) {
    Seat* const seat = find(id);
    if (seat == nullptr || !seat->has_session || seat->standing != Standing::kMember) co_return false;
    members.push_back({seat, seat->prepared.session.number});
  }
  const Result<void> levelled = co_await level_range(range_of(extent, sides_.shared().size_bytes), members, memory);
  if (is_ending()) co_return false;
  if (!levelled && is_medium_error(levelled.error())) find(source_)->last_error = levelled.error();
  // Another may serve as source, but that is for another decision.
  if (find(source_)->standing != Standing::kMember) renew();
  if (!levelled || !std::ranges::all_of(members, [this](const InSession& member) { return is_in(member); })) {
    co_return false;
  }
  sides_.shared().unlevel.clear(extent);
  co_await sides_.look_again();
  co_return true;
}

Task<Result<void>> Reign::level_range(ByteRange range, std::vector<InSession> members, std::byte* memory) {
  if (members.size() < 2) co_return Result<void>();
  Copier::Lock lock(copier_, range);
  FL_CO_TRY_VOID(co_await lock.take(ending_));
  while (!range.empty()) {
    const ByteRange piece = Copier::first_piece(range, piece_bytes());
    const std::span<std::byte> bytes(memory, piece.end - piece.begin);
    const Result<Seat*> source = co_await read_to_level(piece, bytes, members);
    if (!source) co_return std::unexpected(source.error());
    std::vector<InSession> others = members;
    std::erase_if(others, [&](const InSession& member) { return member.seat == *source; });
    FL_CO_TRY_VOID(co_await write_piece(piece, bytes, others));
    range.begin = piece.end;
  }
  co_return Result<void>();
}

// Of the source; what its medium does not give, of another that has every acknowledged write: in what they differ
// nobody has read yet. Returns whose it is.
Task<Result<Reign::Seat*>> Reign::read_to_level(ByteRange range, std::span<std::byte> bytes,
                                                std::vector<InSession> members) {
  Seat* source = find(source_);
  if (source->standing != Standing::kMember) co_return fail(Code::kUnreachable, "the source has gone");
  Result<void> read = co_await read_from(*source, range, bytes);
  for (const InSession& member : members) {
    if (read || is_ending() || !is_medium_error(read.error())) break;
    if (member.seat->peer.slot == find(source_)->peer.slot || member.seat->is_cold || !is_in(member)) continue;
    source = member.seat;
    read = co_await read_from(*source, range, bytes);
  }
  if (!read) co_return std::unexpected(read.error());
  co_return source;
}

// ---- What a replica that returns has missed

// What hosts write to now they may write to again before it is copied, and wait for it.
uint64_t Reign::next_to_copy(const ExtentBits& wanted) const {
  const uint64_t untouched = wanted.next_not_in(sides_.shared().touched);
  return untouched < wanted.extents() ? untouched : wanted.next(0);
}

Task<bool> Reign::copy_all(Seat& seat, ExtentBits& wanted) {
  const MirrorShared::Returning returning(sides_.shared());
  std::vector<uint64_t> extents;
  for (uint64_t at = wanted.next(0); at < wanted.extents(); at = wanted.next(at + 1)) extents.push_back(at);
  seat.to_copy += extents.size();
  bool is_good = true;
  Scope workers(home_.reactor);
  for (size_t i = 0; i < options_.copies_in_flight; ++i) {
    workers.spawn(copy_worker(seat, wanted, seat.prepared.session.number, is_good));
  }
  co_await workers.close();
  if (!is_good || is_ending()) co_return false;
  // Both ends anew (hole H8): on the replica a hole may have stayed one, without a stamp.
  for (const auto& other : seats_) {
    if (other.get() != &seat && other->standing != Standing::kMember) continue;
    if (!co_await stamp_all(*other, extents) && other.get() == &seat) co_return false;
  }
  co_return true;
}

Task<void> Reign::copy_worker(Seat& seat, ExtentBits& wanted, uint64_t session, bool& is_good) {
  const AlignedBytes memory = Copier::make_memory();
  const auto is_same = [&] { return seat.has_session && seat.prepared.session.number == session; };
  while (is_good && !is_ending() && wanted.count() > 0) {
    std::optional<CopyBudget::Place> place = co_await copies_.take(CopyBudget::Kind::kReturn, ending_);
    const uint64_t extent = next_to_copy(wanted);
    if (!place || !is_good || extent >= wanted.extents()) co_return;
    if (!is_same()) break;
    wanted.clear(extent);
    const Instant began = home_.reactor.now();
    sides_.shared().has_io.store(false, std::memory_order_relaxed);
    std::vector<Seat*> to = {&seat};
    const Result<void> copied =
        co_await copy(range_of(extent, sides_.shared().size_bytes), std::move(to), memory.get());
    place.reset();
    if (is_ending()) co_return;
    if (copied && is_same()) {
      ++seat.copied;
      co_await make_way(home_.reactor.now() - began);
    } else if (!copied && copied.error().code == Code::kBusy && is_same()) {
      // A write there is parked: the others first.
      sides_.shared().touched.set(extent);
      wanted.set(extent);
      (void)co_await sleep(home_.reactor, options_.retry_min, ending_);
    } else {
      if (!copied && is_same()) seat.last_error = copied.error();
      is_good = false;
    }
  }
  if (!is_same()) is_good = false;
}

// After a copy that took so long: hosts have their share of the time, when they want it, as if one were copied at once.
Task<void> Reign::make_way(Duration took) {
  const auto share = static_cast<int64_t>(std::clamp<uint32_t>(options_.resync_share_percent, 1, 100));
  if (share == 100 || !sides_.shared().has_io.load(std::memory_order_relaxed)) co_return;
  const int64_t whole = 100 * static_cast<int64_t>(options_.copies_in_flight);
  (void)co_await sleep(home_.reactor, took * (whole - share) / share, ending_);
}

// ---- Repairs

void Reign::repair_wanted(Slot slot, ByteRange range) {
  Seat* const seat = find(slot);
  if (seat == nullptr || is_ending() || seat->standing != Standing::kMember) return;
  scope_.spawn(repair(*seat, range));
}

// What it could not read it gets from another.
Task<void> Reign::repair(Seat& seat, ByteRange range) {
  std::vector<Seat*> to = {&seat};
  const AlignedBytes memory = Copier::make_memory();
  (void)co_await copy(range, std::move(to), memory.get());
}

}  // namespace fairlead::mirror
