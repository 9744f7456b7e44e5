// Connection::Slot: a request and what its connection needs to receive and answer it. See connection.h.
#pragma once

#include <array>

#include "nvme/pdu.h"
#include "target/connection.h"

namespace fairlead::target {

struct Connection::Slot {
  Slot(Connection& c, uint16_t index);

  Connection& connection;
  Request request;
  struct BufferWait : BufferWaiter {
    explicit BufferWait(Slot& s)
        : BufferWaiter([](Runnable& self) {
            Slot& slot = static_cast<BufferWait&>(self).slot;
            slot.connection.on_buffer(slot);
          }),
          slot(s) {}
    Slot& slot;
  } buffer_wait{*this};
  struct Item : SendItem {
    Item(Slot& s, Function function) : SendItem(function), slot(s) {}
    Slot& slot;
  };
  Item response{*this, Connection::on_response_sent};
  Item ready_to_transfer{*this, [](SendItem&) {}};
  uint32_t received = 0;      // bytes of the host's data
  bool in_capsule = false;    // the receive loop waits for the buffer
  bool data_damaged = false;  // a data digest did not fit
  // A command has either data to the host (header and second header) or an R2T (second header) and a response (header).
  std::array<std::byte, nvme::kPduHeaderMax> header;
  std::array<std::byte, nvme::kPduHeaderMax> second_header;
  std::array<std::byte, nvme::kDigestSize> digest;
};

}  // namespace fairlead::target
