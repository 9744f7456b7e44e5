#include "io/stream_sender.h"

#include "base/check.h"

namespace fairlead {

StreamSender::StreamSender(Reactor& reactor, Stream& stream, OnIdle on_idle, void* context)
    : reactor_(reactor), stream_(stream), on_idle_(on_idle), context_(context) {}

StreamSender::~StreamSender() { FL_CHECK(!under_way_ && queue_.empty()); }

void StreamSender::enqueue(SendItem& item) {
  FL_CHECK(!failed_ && !item.all().empty());
  item.started = false;
  queue_.push_back(item);
  ++queued_;
  if (!under_way_ && !flush_.is_linked()) reactor_.post(flush_);
}

void StreamSender::flush() {
  if (under_way_ || failed_ || queue_.empty()) return;
  if (queued_ < batch_min_ && deferrals_ < kDeferralsMax) {
    ++deferrals_;
    reactor_.post(flush_);
    return;
  }
  deferrals_ = 0;
  size_t count = 0;
  size_t bytes = 0;
  size_t skip = first_sent_;
  for (SendItem& item : queue_) {
    for (const iovec& piece : item.all()) {
      if (skip >= piece.iov_len) {
        skip -= piece.iov_len;
        continue;
      }
      if (count == batch_.size()) break;
      batch_[count++] = {static_cast<std::byte*>(piece.iov_base) + skip, piece.iov_len - skip};
      bytes += piece.iov_len - skip;
      skip = 0;
      item.started = true;
    }
    if (count == batch_.size() || bytes >= kBatchBytes) break;
  }
  under_way_ = true;
  operation_.buffers = {batch_.data(), count};
  stream_.start_send(operation_);
}

void StreamSender::on_sent() {
  under_way_ = false;
  if (!operation_.result) {
    failed_ = true;
    drop_queue();
    on_idle_(context_);
    return;
  }
  first_sent_ += *operation_.result;
  while (!queue_.empty()) {
    SendItem& item = queue_.front();
    size_t length = 0;
    for (const iovec& piece : item.all()) length += piece.iov_len;
    if (first_sent_ < length) break;
    first_sent_ -= length;
    queue_.remove(item);
    --queued_;
    item.sent(item);
  }
  if (failed_) drop_queue();  // stopped meanwhile
  if (queue_.empty()) {
    on_idle_(context_);
  } else {
    flush();
  }
}

void StreamSender::stop() {
  failed_ = true;
  reactor_.unpost(flush_);
  if (!under_way_) drop_queue();
}

void StreamSender::drop_queue() {
  while (!queue_.empty()) queue_.pop_front();
  queued_ = 0;
  first_sent_ = 0;
}

}  // namespace fairlead
