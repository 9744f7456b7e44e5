#include "io/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <new>
#include <sys/mman.h>
#include <utility>

#include "base/check.h"
#include "base/fault.h"

namespace fairlead {

namespace {

struct FreePiece {
  FreePiece* next;
};

constexpr size_t kSlabBytes = BufferPool::kSlabBytes;

}  // namespace

struct BufferSlab {
  std::byte* base = nullptr;
  size_t size_class = 0;
  size_t pieces_free = 0;
  size_t pieces_cut = 0;  // never handed out before: beyond these the free list holds
  FreePiece* free = nullptr;

  BufferSlab() {
    void* const memory = ::mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FL_CHECK(memory != MAP_FAILED);
    base = static_cast<std::byte*>(memory);
  }
  ~BufferSlab() { ::munmap(base, kSlabBytes); }
  BufferSlab(const BufferSlab&) = delete;
  BufferSlab& operator=(const BufferSlab&) = delete;

  size_t piece_bytes() const { return BufferPool::kSizeMin << size_class; }
  size_t pieces() const { return kSlabBytes / piece_bytes(); }
  void dedicate(size_t to_class) {
    size_class = to_class;
    pieces_free = pieces();
    pieces_cut = 0;
    free = nullptr;
  }
};

BufferAccount::~BufferAccount() { FL_CHECK(held_ == 0); }

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      account_(std::exchange(other.account_, nullptr)),
      slab_(std::exchange(other.slab_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    account_ = std::exchange(other.account_, nullptr);
    slab_ = std::exchange(other.slab_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

void Buffer::reset() {
  if (data_ != nullptr) pool_->release(*this);
}

std::span<std::byte> Buffer::bytes(size_t length) const {
  FL_CHECK(length <= capacity_);
  return {data_, length};
}

BufferPool::BufferPool(Reactor& reactor, Options options) : reactor_(reactor), options_(options), partial_(kClasses) {
  FL_CHECK(options_.account_reserve >= kSizeMax);
}

BufferPool::~BufferPool() {
  FL_CHECK(held_ == 0);
  FL_CHECK(waiters_.empty());
}

size_t BufferPool::class_of(size_t length) {
  FL_CHECK(length > 0 && length <= kSizeMax);
  return static_cast<size_t>(std::bit_width((length - 1) / kSizeMin));
}

// Within the reserve always; beyond it while the shared budget lasts.
bool BufferPool::may_hold(const BufferAccount& account, size_t capacity) const {
  const uint64_t after = account.held_ + capacity;
  if (after <= options_.account_reserve) return true;
  const uint64_t beyond = after - std::max(account.held_, options_.account_reserve);
  return shared_held_ + beyond <= options_.shared_max;
}

BufferPool::Slab* BufferPool::empty_slab() {
  if (!empty_.empty()) {
    Slab* const slab = empty_.back();
    empty_.pop_back();
    return slab;
  }
  slabs_.push_back(std::make_unique<Slab>());
  Slab* const slab = slabs_.back().get();
  const size_t index = slabs_.size() - 1;
  const std::pair<const std::byte*, size_t> entry(slab->base, index);
  slab_index_.insert(std::ranges::upper_bound(slab_index_, entry), entry);
  if (options_.observer != nullptr) options_.observer->slab_added(index, {slab->base, kSlabBytes});
  return slab;
}

void BufferPool::take_piece(Buffer& buffer, size_t size_class) {
  std::vector<Slab*>& partial = partial_[size_class];
  if (partial.empty()) {
    Slab* const slab = empty_slab();
    slab->dedicate(size_class);
    partial.push_back(slab);
  }
  Slab& slab = *partial.back();
  buffer.slab_ = &slab;
  if (slab.free != nullptr) {
    buffer.data_ = reinterpret_cast<std::byte*>(slab.free);
    slab.free = slab.free->next;
  } else {
    buffer.data_ = slab.base + slab.pieces_cut++ * slab.piece_bytes();
  }
  if (--slab.pieces_free == 0) partial.pop_back();
}

Buffer BufferPool::try_allocate(BufferAccount& account, size_t length) {
  const size_t capacity = kSizeMin << class_of(length);
  // The line comes first: a stream of small requests must not starve a large one that waits.
  const bool others_wait = !waiters_.empty() && account.held_ + capacity > options_.account_reserve;
  if (others_wait || !may_hold(account, capacity) || fault(FaultPoint::kBufferPoolExhausted)) return {};
  return grant(account, capacity);
}

Buffer BufferPool::grant(BufferAccount& account, size_t capacity) {
  Buffer buffer;
  buffer.pool_ = this;
  buffer.account_ = &account;
  buffer.capacity_ = capacity;
  take_piece(buffer, class_of(capacity));
  const uint64_t before = std::max(account.held_, options_.account_reserve);
  account.held_ += capacity;
  held_ += capacity;
  shared_held_ += std::max(account.held_, options_.account_reserve) - before;
  return buffer;
}

void BufferPool::wait(BufferWaiter& waiter, BufferAccount& account, size_t length) {
  probe(Probe::kBufferWait);
  ++waits_;
  waiter.account_ = &account;
  waiter.capacity_ = kSizeMin << class_of(length);
  waiter.link_.waiter = &waiter;
  waiters_.push_back(waiter.link_);
  serve_waiters();
}

bool BufferPool::cancel(BufferWaiter& waiter) {
  if (!waiter.link_.is_linked()) return false;
  waiters_.remove(waiter.link_);
  serve_waiters();
  return true;
}

void BufferPool::release(Buffer& buffer) {
  Slab& slab = *buffer.slab_;
  FL_CHECK(slab.piece_bytes() == buffer.capacity_);
  slab.free = ::new (static_cast<void*>(buffer.data_)) FreePiece{slab.free};
  std::vector<Slab*>& partial = partial_[slab.size_class];
  if (slab.pieces_free++ == 0) partial.push_back(&slab);
  if (slab.pieces_free == slab.pieces()) {
    std::erase(partial, &slab);
    empty_.push_back(&slab);
  }
  BufferAccount& account = *buffer.account_;
  const uint64_t before = std::max(account.held_, options_.account_reserve);
  account.held_ -= buffer.capacity_;
  held_ -= buffer.capacity_;
  shared_held_ -= before - std::max(account.held_, options_.account_reserve);
  buffer.data_ = nullptr;
  buffer.slab_ = nullptr;
  buffer.pool_ = nullptr;
  if (!waiters_.empty()) serve_waiters();
}

// First in line first; one that must wait for the shared budget does not hold up those within their reserve.
void BufferPool::serve_waiters() {
  bool shared_blocked = false;
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    BufferWaiter& waiter = *(*at).waiter;
    ++at;
    const bool within_reserve = waiter.account_->held_ + waiter.capacity_ <= options_.account_reserve;
    if (!within_reserve && (shared_blocked || !may_hold(*waiter.account_, waiter.capacity_))) {
      shared_blocked = true;
      continue;
    }
    waiters_.remove(waiter.link_);
    waiter.buffer = grant(*waiter.account_, waiter.capacity_);
    reactor_.post(waiter);
  }
}

BufferPool::Place BufferPool::find(const void* memory) const {
  const auto* const address = static_cast<const std::byte*>(memory);
  auto at = std::ranges::upper_bound(slab_index_, address, {}, [](const auto& entry) { return entry.first; });
  if (at == slab_index_.begin()) return {};
  --at;
  const auto offset = static_cast<size_t>(address - at->first);
  if (offset >= kSlabBytes) return {};
  return {static_cast<int>(at->second), offset};
}

}  // namespace fairlead
