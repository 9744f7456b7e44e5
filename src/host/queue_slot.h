// Queue::Slot: a command in flight and what its PDUs need. See queue.h.
#pragma once

#include <array>
#include <vector>

#include "host/queue.h"

namespace fairlead::host {

// CID: the slot's index below, a generation above, so that an answer to an earlier command of the slot is found out.
inline constexpr uint32_t kCidIndexBits = 10;
static_assert((1U << kCidIndexBits) == Queue::kDepthMax);

struct Queue::Slot : ListNode<Slot> {
  struct Item : SendItem {
    Item(Slot& s, Function function) : SendItem(function), slot(s) {}
    Slot& slot;
  };

  Queue* queue = nullptr;
  Command* command = nullptr;  // null: free
  uint16_t index = 0;
  uint16_t cid = 0;
  uint8_t generation = 0;
  bool answered = false;      // waits only for what the sender still holds
  bool expired = false;       // the observer was told
  bool in_capsule = false;    // the data went with the command
  bool data_damaged = false;  // a data digest did not fit
  uint32_t received = 0;      // bytes of the controller's data
  Instant submitted;
  // What the controller asked for with R2T: [sent, requested) is to go out. `next_r2t` may come before the sender has
  // told that the last piece is out.
  uint32_t sent = 0;
  uint32_t requested = 0;
  uint16_t ttag = 0;
  bool has_next_r2t = false;
  uint32_t next_requested = 0;
  uint16_t next_ttag = 0;

  Item capsule{*this, Queue::on_command_sent};
  Item data{*this, Queue::on_data_sent};
  std::array<std::byte, nvme::kPduHeaderMax> header;
  std::array<std::byte, nvme::kPduHeaderMax> data_header;
  std::array<std::byte, nvme::kDigestSize> digest;
  std::vector<iovec> list;  // of an item with more pieces than it has room for
};

}  // namespace fairlead::host
