// One queue against a controller that is unusual, slow, gone, or refuses it; queue_lies_test.cc has one that lies.
#include "host/queue.h"

#include <gmock/gmock.h>

#include "tests/support/controller_bed.h"

namespace fairlead::host {
namespace {

using nvme::FatalError;
using nvme::NvmOpcode;
using nvme::StatusCode;
using testing::ControllerBed;
using testing::GuardedCommand;
using testing::pattern;
using testing::rough_settings;
using testing::ScriptedCommand;
using testing::ScriptedLink;
using Bytes = std::vector<std::byte>;

constexpr uint32_t kReadBytes = 8192;
constexpr uint32_t kWriteBytes = 16384;  // more than goes into a capsule

Task<void> end(Queue& queue) {
  queue.close("the test is over");
  co_await queue.closed();
}

Bytes blank(size_t length) { return Bytes(length); }

// ---- Unusual, and right.

Task<void> takes_data_as_it_is_asked_for(ControllerBed& bed, uint32_t step, bool digests) {
  bed.controller.nature.greeting.max_h2c_data = 4096;
  bed.controller.nature.greeting.data_alignment = 31;
  bed.on_command([step](ScriptedLink& link, const ScriptedCommand& command) {
    if (command.entry.is_fabrics()) return false;
    link.send_r2t({.cccid = command.cid(), .ttag = 0x8001, .length = std::min(step, kWriteBytes)});
    return true;
  });
  bed.on_data([step](ScriptedLink& link, const nvme::H2cDataPdu& pdu) {
    EXPECT_EQ(pdu.ttag, 0x8001);
    const uint32_t done = pdu.datao + pdu.datal;
    const bool last_of_r2t = (pdu.header.flags & nvme::kPduLast) != 0;
    EXPECT_EQ(last_of_r2t, done % step == 0 || done == kWriteBytes);
    if (done == kWriteBytes) {
      link.complete(pdu.cccid);
    } else if (last_of_r2t) {
      link.send_r2t({.cccid = pdu.cccid, .ttag = 0x8001, .offset = done, .length = std::min(step, kWriteBytes - done)});
    }
    return true;
  });
  QueueOptions options = bed.queue_options();
  options.header_digest = options.data_digest = digests;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand command(bed.reactor(), NvmOpcode::kWrite, kWriteBytes);
  queue.submit(command);
  co_await command.ended.wait();
  EXPECT_TRUE(command.is_ok());
  const std::vector<uint32_t>& lengths = bed.last_link().data_lengths();
  EXPECT_THAT(lengths, ::testing::Each(::testing::Le(4096U)));
  EXPECT_EQ(lengths.size(), step >= 4096 ? 4U : (kWriteBytes + step - 1) / step);
  co_await end(queue);
}
TEST(QueueTest, SplitsWhatAnR2tAsksForByMaxH2cData) {
  ControllerBed().run([](ControllerBed& bed) { return takes_data_as_it_is_asked_for(bed, kWriteBytes, true); });
}
TEST(QueueTest, TakesR2tsOfManySmallPieces) {
  ControllerBed().run([](ControllerBed& bed) { return takes_data_as_it_is_asked_for(bed, 300, false); });
  ControllerBed(rough_settings(sim::Chop::kRandom)).run([](ControllerBed& bed) {
    return takes_data_as_it_is_asked_for(bed, 300, true);
  });
}

Task<void> takes_data_in_pieces(ControllerBed& bed) {
  static const Bytes sent = pattern(kReadBytes, 3);
  bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
    if (command.entry.is_fabrics()) return false;
    for (uint32_t at = 0; at < kReadBytes; at += 1000) {
      const uint32_t length = std::min(1000U, kReadBytes - at);
      link.send_data({.cccid = command.cid(),
                      .offset = at,
                      .last = at + length == kReadBytes,
                      .success = at + length == kReadBytes && command.entry.cdw10 == 0},
                     std::span(sent).subspan(at, length));
    }
    if (command.entry.cdw10 != 0) link.complete(command.cid());
    return true;
  });
  Queue queue(bed.shard(), bed.queue_options());
  CO_ASSERT_TRUE(co_await queue.connect());
  for (const uint32_t with_capsule : {0U, 1U}) {
    GuardedCommand command(bed.reactor(), NvmOpcode::kRead, kReadBytes);
    command.entry.cdw10 = with_capsule;
    queue.submit(command);
    co_await command.ended.wait();
    EXPECT_TRUE(command.is_ok());
    EXPECT_TRUE(std::ranges::equal(command.bytes(), sent));
    EXPECT_TRUE(command.guards_hold());
  }
  co_await end(queue);
}
TEST(QueueTest, TakesDataInPieces) {
  ControllerBed().run(takes_data_in_pieces);
  ControllerBed(rough_settings(sim::Chop::kSingleBytes)).run(takes_data_in_pieces);
}

// A controller may give up in the middle of a transfer; the queue goes on.
Task<void> ends_with_an_error_in_the_middle(ControllerBed& bed) {
  bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
    if (command.entry.is_fabrics() || command.entry.cdw10 != 0) return false;
    if (command.is(nvme::AdminOpcode{static_cast<uint8_t>(NvmOpcode::kRead)})) {
      link.send_data({.cccid = command.cid()}, blank(4096));
    } else {
      link.send_r2t({.cccid = command.cid(), .length = 8192});
    }
    link.complete(command.cid(), nvme::permanent(StatusCode::kInternalError));
    return true;
  });
  Queue queue(bed.shard(), bed.queue_options());
  CO_ASSERT_TRUE(co_await queue.connect());
  for (const NvmOpcode opcode : {NvmOpcode::kRead, NvmOpcode::kWrite}) {
    GuardedCommand command(bed.reactor(), opcode, kWriteBytes);
    queue.submit(command);
    co_await command.ended.wait();
    EXPECT_EQ(command.outcome, Outcome::kAnswered);
    EXPECT_EQ(command.status.code, StatusCode::kInternalError);
  }
  GuardedCommand healthy(bed.reactor(), NvmOpcode::kRead, 4096);
  healthy.entry.cdw10 = 1;
  queue.submit(healthy);
  co_await healthy.ended.wait();
  EXPECT_TRUE(healthy.is_ok());
  co_await end(queue);
}
TEST(QueueTest, EndsWithAnErrorInTheMiddle) { ControllerBed().run(ends_with_an_error_in_the_middle); }

// ---- The greeting and Connect.

Task<void> is_refused(ControllerBed& bed, QueueOptions options, Code code) {
  Queue queue(bed.shard(), options);
  GuardedCommand early(bed.reactor(), NvmOpcode::kRead, 4096);
  const Instant begin = bed.reactor().now();
  const Result<void> connected = co_await queue.connect();
  EXPECT_FALSE(connected);
  if (!connected) EXPECT_EQ(connected.error().code, code) << to_string(connected.error());
  EXPECT_TRUE(queue.is_lost());
  EXPECT_LE(bed.reactor().now() - begin, options.connect_timeout + std::chrono::seconds(2));
  queue.submit(early);
  EXPECT_EQ(early.endings, 1);
  EXPECT_EQ(early.outcome, Outcome::kNotSent);
}

void greets_with(nvme::IcRespParameters greeting, bool wanted, Code code) {
  ControllerBed().run([=](ControllerBed& bed) {
    bed.tolerates_complaints = true;  // the host ends it in the framing that it asked for
    bed.on_greeting([=](ScriptedLink& link) {
      link.greet(greeting);
      return true;
    });
    QueueOptions options = bed.queue_options();
    options.header_digest = options.data_digest = wanted;
    return is_refused(bed, options, code);
  });
}
TEST(QueueTest, RefusesDigestsThatItDidNotAskFor) {
  greets_with({.header_digest = true, .max_h2c_data = 4096}, false, Code::kProtocol);
  greets_with({.data_digest = true, .max_h2c_data = 4096}, false, Code::kProtocol);
}
TEST(QueueTest, NeedsTheDigestsThatItAskedFor) {
  greets_with({.max_h2c_data = 4096}, true, Code::kNotSupported);
  greets_with({.header_digest = true, .max_h2c_data = 4096}, true, Code::kNotSupported);
  greets_with({.data_digest = true, .max_h2c_data = 4096}, true, Code::kNotSupported);
}

TEST(QueueTest, RefusesAFalseGreeting) {
  // One byte of a proper ICResp is another.
  const auto check = [](size_t at, std::byte value) {
    SCOPED_TRACE(at);
    ControllerBed().run([=](ControllerBed& bed) {
      bed.tolerates_complaints = true;
      bed.on_greeting([=](ScriptedLink& link) {
        std::array<std::byte, nvme::kPduHeaderMax> bytes;
        const uint32_t length = nvme::build_ic_resp(bytes, {.max_h2c_data = 4096});
        bytes[at] = value;
        link.send_raw(std::span(bytes).first(length));
        return true;
      });
      return is_refused(bed, bed.queue_options(), Code::kProtocol);
    });
  };
  check(0, std::byte{0});                                          // type
  check(1, std::byte{1});                                          // flags
  check(2, std::byte{127});                                        // HLEN
  check(4, std::byte{127});                                        // PLEN
  check(offsetof(nvme::IcRespPdu, pfv), std::byte{1});             // another format
  check(offsetof(nvme::IcRespPdu, cpda), std::byte{32});           // above 31
  check(offsetof(nvme::IcRespPdu, dgst), std::byte{3});            // not asked for
  check(offsetof(nvme::IcRespPdu, maxh2cdata) + 1, std::byte{0});  // 0
  check(offsetof(nvme::IcRespPdu, maxh2cdata), std::byte{2});      // no multiple of 4
}

TEST(QueueTest, NothingComesBeforeTheGreeting) {
  ControllerBed().run([](ControllerBed& bed) {
    bed.on_greeting([](ScriptedLink& link) {
      link.complete(0x400);
      return true;
    });
    bed.tolerates_complaints = true;
    return is_refused(bed, bed.queue_options(), Code::kProtocol);
  });
}

TEST(QueueTest, ConnectRefused) {
  const std::pair<StatusCode, Code> kCases[] = {
      {StatusCode::kConnectIncompatibleFormat, Code::kIo},
      {StatusCode::kConnectControllerBusy, Code::kBusy},
      {StatusCode::kConnectInvalidParameters, Code::kInvalidArgument},
      {StatusCode::kConnectRestartDiscovery, Code::kIo},
      {StatusCode::kConnectInvalidHost, Code::kPermissionDenied},
      {StatusCode::kAuthenticationRequired, Code::kPermissionDenied},
      {StatusCode::kInvalidQueueType, Code::kIo},
      {StatusCode::kInvalidField, Code::kInvalidArgument},
      {StatusCode::kInternalError, Code::kIo},
      {StatusCode{0x7ff}, Code::kIo},
      {StatusCode{0x1ff}, Code::kIo},
  };
  for (const auto& [status, code] : kCases) {
    SCOPED_TRACE(nvme::to_string({status}));
    ControllerBed().run([=](ControllerBed& bed) {
      bed.on_command([=](ScriptedLink& link, const ScriptedCommand& command) {
        link.complete(command.cid(), nvme::permanent(status));
        return true;
      });
      return is_refused(bed, bed.queue_options(), code);
    });
  }
}

TEST(QueueTest, ConnectThatDemandsAuthentication) {
  ControllerBed().run([](ControllerBed& bed) {
    bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
      link.complete(command.cid(), nvme::kOk, nvme::kConnectAuthenticationRequired | 7);
      return true;
    });
    return is_refused(bed, bed.queue_options(), Code::kPermissionDenied);
  });
}

TEST(QueueTest, NobodyListens) {
  ControllerBed().run([](ControllerBed& bed) {
    QueueOptions options = bed.queue_options();
    options.address.port = 4421;
    return is_refused(bed, options, Code::kUnreachable);
  });
}

TEST(QueueTest, SilenceEndsTheGreeting) {
  ControllerBed().run([](ControllerBed& bed) {
    bed.on_greeting([](ScriptedLink&) { return true; });
    return is_refused(bed, bed.queue_options(), Code::kTimedOut);
  });
}
TEST(QueueTest, SilenceEndsConnect) {
  ControllerBed().run([](ControllerBed& bed) {
    bed.on_command([](ScriptedLink&, const ScriptedCommand&) { return true; });
    return is_refused(bed, bed.queue_options(), Code::kTimedOut);
  });
}

// The answer to Connect, and right behind it the end.
Task<void> ends_behind_connect(ControllerBed& bed) {
  Queue queue(bed.shard(), bed.queue_options());
  GuardedCommand early(bed.reactor(), NvmOpcode::kRead, 4096);
  const Result<void> connected = co_await queue.connect();
  queue.submit(early);
  co_await early.ended.wait();
  EXPECT_NE(early.outcome, Outcome::kAnswered);
  EXPECT_TRUE(!connected || queue.is_lost());
  EXPECT_FALSE(queue.is_live());
  co_await end(queue);
}
TEST(QueueTest, TerminatedRightBehindConnect) {
  ControllerBed().run([](ControllerBed& bed) {
    bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
      link.answer(command);
      link.terminate(FatalError::kUnsupportedParameter);
      return true;
    });
    return ends_behind_connect(bed);
  });
}
TEST(QueueTest, GarbageRightBehindConnect) {
  for (const uint32_t window : {64U, 65536U}) {
    sim::SimSettings settings = sim::SimSettings::calm();
    settings.network.window_min = settings.network.window_max = window;
    ControllerBed(settings).run(
        [](ControllerBed& bed) {
          bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
            link.answer(command);
            link.send_raw(Bytes(24, std::byte{0xff}));
            link.set_reading(false);
            return true;
          });
          return ends_behind_connect(bed);
        },
        std::chrono::seconds(20));
  }
}
TEST(QueueTest, ClosedRightBehindConnect) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    ControllerBed(rough_settings(sim::Chop::kWhole), seed).run([](ControllerBed& bed) {
      bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
        link.answer(command);
        link.close_behind_outbox();
        return true;
      });
      return ends_behind_connect(bed);
    });
  }
}

// Connect comes with its data, however little room the controller has for that of I/O commands.
Task<void> connects_without_room(ControllerBed& bed) {
  QueueOptions options = bed.queue_options();
  options.in_capsule_max = 0;
  Queue queue(bed.shard(), options);
  EXPECT_TRUE(co_await queue.connect());
  GuardedCommand write(bed.reactor(), NvmOpcode::kWrite, 4096);
  queue.submit(write);
  co_await write.ended.wait();
  EXPECT_TRUE(write.is_ok());
  EXPECT_EQ(bed.last_link().data_lengths(), std::vector<uint32_t>{4096});
  co_await end(queue);
}
TEST(QueueTest, ConnectsWithoutRoomInCapsules) { ControllerBed().run(connects_without_room); }

// ---- Digests.

Task<void> header_digest_ends_it(ControllerBed& bed) {
  bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
    if (!command.entry.is_fabrics()) link.damage_next_header();
    return false;
  });
  QueueOptions options = bed.queue_options();
  options.header_digest = true;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand command(bed.reactor(), NvmOpcode::kRead, 4096);
  queue.submit(command);
  co_await command.ended.wait();
  EXPECT_EQ(command.outcome, Outcome::kLost);
  co_await end(queue);
  while (!bed.last_link().has_ended()) co_await bed.sleep(std::chrono::milliseconds(1));
  CO_ASSERT_TRUE(bed.last_link().termination().has_value());
  EXPECT_EQ(static_cast<FatalError>(bed.last_link().termination()->fes.get()), FatalError::kHeaderDigest);
}
TEST(QueueTest, WrongHeaderDigestEndsTheConnection) { ControllerBed().run(header_digest_ends_it); }

Task<void> data_digest_fails_the_command(ControllerBed& bed) {
  bed.on_command([count = 0](ScriptedLink& link, const ScriptedCommand& command) mutable {
    if (!command.entry.is_fabrics() && ++count <= 2) link.damage_next_data();
    if (command.entry.is_fabrics() || count != 2) return false;
    link.send_data({.cccid = command.cid(), .last = true, .success = true}, blank(command.entry.sgl.length));
    return true;
  });
  QueueOptions options = bed.queue_options();
  options.data_digest = true;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  for (const bool good : {false, false, true}) {
    GuardedCommand command(bed.reactor(), NvmOpcode::kRead, 4096);
    queue.submit(command);
    co_await command.ended.wait();
    EXPECT_EQ(command.outcome, Outcome::kAnswered);
    EXPECT_EQ(command.status, good ? nvme::kOk : nvme::transient(StatusCode::kTransientTransportError));
  }
  EXPECT_TRUE(queue.is_live());
  co_await end(queue);
}
TEST(QueueTest, WrongDataDigestFailsTheCommand) {
  ControllerBed().run(data_digest_fails_the_command);
  ControllerBed(rough_settings(sim::Chop::kSingleBytes)).run(data_digest_fails_the_command);
}

// The controller answers what has not gone out yet, with data that is damaged, and goes.
Task<void> answers_what_was_not_sent(ControllerBed& bed) {
  bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
    if (command.entry.is_fabrics()) return false;
    link.set_reading(false);
    const uint16_t next = 0x402;  // the third slot's first command
    link.damage_next_data();
    link.send_data({.cccid = next, .last = true, .success = true}, blank(4096));
    link.close_behind_outbox();
    return true;
  });
  QueueOptions options = bed.queue_options();
  options.data_digest = true;
  options.depth = 4;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand first(bed.reactor(), NvmOpcode::kFlush, 0);
  GuardedCommand large(bed.reactor(), NvmOpcode::kWrite, 8192);
  GuardedCommand read(bed.reactor(), NvmOpcode::kRead, 4096);
  queue.submit(first);
  queue.submit(large);
  queue.submit(read);
  co_await read.ended.wait();
  EXPECT_FALSE(read.is_ok());
  co_await large.ended.wait();
  co_await end(queue);
}
TEST(QueueTest, AnAnswerToWhatWasNotSentIsNone) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.network.window_min = settings.network.window_max = 1024;
  ControllerBed(settings).run(answers_what_was_not_sent);
}

// ---- Loss.

Task<void> is_terminated(ControllerBed& bed) {
  bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
    if (command.entry.is_fabrics()) return false;
    link.terminate(FatalError::kUnsupportedParameter);
    return true;
  });
  Queue queue(bed.shard(), bed.queue_options());
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand command(bed.reactor(), NvmOpcode::kRead, 4096);
  queue.submit(command);
  co_await command.ended.wait();
  EXPECT_EQ(command.outcome, Outcome::kLost);
  co_await end(queue);
  EXPECT_STREQ(queue.reason(), "the controller terminated the connection");
}
TEST(QueueTest, TerminatedByTheController) { ControllerBed().run(is_terminated); }

// The controller's stream ends at each of its bytes.
struct Exchange {
  static constexpr uint32_t kBytes = 64;
  uint64_t cut_after = 0;
  Result<void> connected;
  bool read_ok = false;
  bool write_ok = false;
};
Task<void> is_cut(ControllerBed& bed, Exchange& exchange) {
  bed.on_greeting([&exchange](ScriptedLink& link) {
    link.cut_after(exchange.cut_after);
    return false;
  });
  Queue queue(bed.shard(), bed.queue_options());
  exchange.connected = co_await queue.connect();
  GuardedCommand read(bed.reactor(), NvmOpcode::kRead, Exchange::kBytes);
  GuardedCommand write(bed.reactor(), NvmOpcode::kWrite, kWriteBytes);
  for (GuardedCommand* each : {&read, &write}) {
    queue.submit(*each);
    co_await each->ended.wait();
    EXPECT_EQ(each->endings, 1);
    EXPECT_TRUE(each->guards_hold());
    if (each->outcome == Outcome::kAnswered) EXPECT_TRUE(each->status.ok());
  }
  exchange.read_ok = read.is_ok();
  exchange.write_ok = write.is_ok();
  EXPECT_TRUE(exchange.write_ok || !queue.is_live());
  co_await end(queue);
}
TEST(QueueTest, CutAtEveryByte) {
  constexpr uint64_t kConnected = 128 + 24;
  constexpr uint64_t kRead = kConnected + 24 + Exchange::kBytes + 24;
  constexpr uint64_t kWritten = kRead + 24 + 24;
  for (uint64_t bytes = 0; bytes <= kWritten; ++bytes) {
    SCOPED_TRACE(bytes);
    Exchange exchange;
    exchange.cut_after = bytes;
    ControllerBed().run([&](ControllerBed& bed) { return is_cut(bed, exchange); });
    EXPECT_TRUE(exchange.connected || bytes <= kConnected);
    EXPECT_EQ(exchange.read_ok, bytes >= kRead);
    EXPECT_EQ(exchange.write_ok, bytes >= kWritten);
  }
}

Task<void> expires(ControllerBed& bed) {
  bed.on_command([](ScriptedLink&, const ScriptedCommand& command) { return !command.entry.is_fabrics(); });
  QueueOptions options = bed.queue_options();
  options.command_timeout = std::chrono::seconds(3);
  options.abort_timeout = std::chrono::seconds(2);
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand first(bed.reactor(), NvmOpcode::kRead, 4096);
  GuardedCommand second(bed.reactor(), NvmOpcode::kRead, 4096);
  const Instant begin = bed.reactor().now();
  queue.submit(first);
  (void)co_await bed.sleep(std::chrono::seconds(1));
  queue.submit(second);
  std::vector<uint16_t> told;
  while (!queue.is_lost()) {
    queue.attention().reset();
    co_await queue.attention().wait();
    for (uint16_t cid = 0; queue.take_expired(cid);) {
      EXPECT_EQ(bed.reactor().now() - begin >= std::chrono::seconds(3 + static_cast<int>(told.size())), true);
      told.push_back(cid);
    }
  }
  EXPECT_THAT(told, ::testing::ElementsAre(first.entry.cid.get(), second.entry.cid.get()));
  EXPECT_GE(bed.reactor().now() - begin, std::chrono::seconds(5));
  EXPECT_LE(bed.reactor().now() - begin, std::chrono::milliseconds(5100));
  EXPECT_EQ(first.outcome, Outcome::kLost);
  EXPECT_EQ(second.outcome, Outcome::kLost);
  EXPECT_STREQ(queue.reason(), "a command was not answered in time");
  co_await end(queue);
}
TEST(QueueTest, SilenceExpiresCommandsThenLosesTheQueue) { ControllerBed().run(expires); }

// What the controller saw is never "not sent", and what it cannot have seen always is.
Task<void> tells_what_was_sent(ControllerBed& bed) {
  bed.on_command([count = 0](ScriptedLink& link, const ScriptedCommand& command) mutable {
    if (command.entry.is_fabrics()) return false;
    if (++count == 3) link.set_reading(false);
    return true;
  });
  QueueOptions options = bed.queue_options();
  options.depth = 40;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  std::vector<std::unique_ptr<GuardedCommand>> commands;
  for (uint32_t i = 0; i < 50; ++i) {
    commands.push_back(std::make_unique<GuardedCommand>(bed.reactor(), NvmOpcode::kWrite, 8192));
    commands.back()->entry.cdw10 = i;
    queue.submit(*commands.back());
  }
  (void)co_await bed.sleep(std::chrono::seconds(1));
  EXPECT_EQ(queue.in_flight(), 40U);
  std::set<uint32_t> seen;
  for (const ScriptedCommand& command : bed.last_link().commands()) {
    if (!command.entry.is_fabrics()) seen.insert(command.entry.cdw10);
  }
  EXPECT_GE(seen.size(), 3U);
  co_await end(queue);
  size_t not_sent = 0;
  for (uint32_t i = 0; i < 50; ++i) {
    EXPECT_EQ(commands[i]->endings, 1);
    EXPECT_NE(commands[i]->outcome, Outcome::kAnswered);
    if (commands[i]->outcome == Outcome::kNotSent) ++not_sent;
    if (seen.contains(i)) EXPECT_EQ(commands[i]->outcome, Outcome::kLost);
    if (i >= 40) EXPECT_EQ(commands[i]->outcome, Outcome::kNotSent);
  }
  EXPECT_LT(not_sent, 50 - seen.size());  // one at least was on its way
}
TEST(QueueTest, TellsWhatWasSent) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    sim::SimSettings settings = rough_settings(sim::Chop::kRandom);
    settings.network.window_min = 16 * 1024;
    settings.network.window_max = 64 * 1024;
    ControllerBed(settings, seed).run(tells_what_was_sent);
  }
}

// ---- Depth.

Task<void> keeps_to_its_depth(ControllerBed& bed, uint16_t depth) {
  std::vector<uint16_t> held;
  size_t seen = 0;
  bed.on_command([&](ScriptedLink&, const ScriptedCommand& command) {
    if (command.entry.is_fabrics()) {
      EXPECT_EQ(nvme::fabrics_view<nvme::ConnectCommand>(command.entry).sqsize, depth);
      return false;
    }
    ++seen;
    held.push_back(command.cid());
    return true;
  });
  QueueOptions options = bed.queue_options();
  options.depth = depth;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  std::vector<std::unique_ptr<GuardedCommand>> commands;
  for (size_t i = 0; i < depth + 10U; ++i) {
    commands.push_back(std::make_unique<GuardedCommand>(bed.reactor(), NvmOpcode::kFlush, 0));
    queue.submit(*commands.back());
  }
  while (seen < commands.size()) {
    (void)co_await bed.sleep(std::chrono::milliseconds(20));
    EXPECT_LE(held.size(), depth);
    EXPECT_EQ(std::set<uint16_t>(held.begin(), held.end()).size(), held.size());
    EXPECT_EQ(queue.in_flight(), held.size());
    // The newest first.
    while (!held.empty()) {
      bed.last_link().complete(held.back());
      held.pop_back();
    }
  }
  for (const auto& command : commands) {
    co_await command->ended.wait();
    EXPECT_TRUE(command->is_ok());
  }
  EXPECT_EQ(queue.in_flight(), 0U);
  co_await end(queue);
}
TEST(QueueTest, KeepsToItsDepth) {
  for (const auto depth : std::initializer_list<uint16_t>{1, 2, 1024}) {
    SCOPED_TRACE(depth);
    ControllerBed().run([=](ControllerBed& bed) { return keeps_to_its_depth(bed, depth); });
  }
}

// A command that is submitted again whenever it ends leaves room for those that wait.
struct Repeated : GuardedCommand {
  Repeated(Reactor& reactor, Queue& q) : GuardedCommand(reactor, NvmOpcode::kFlush, 0), queue(q) {
    done = [](Command& command) {
      auto& self = static_cast<Repeated&>(command);
      ++self.endings;
      if (self.endings < 50 && self.outcome == Outcome::kAnswered) return self.queue.submit(self);
      self.ended.set();
    };
  }
  Queue& queue;
};
Task<void> serves_in_turn(ControllerBed& bed) {
  QueueOptions options = bed.queue_options();
  options.depth = 1;
  Queue queue(bed.shard(), options);
  CO_ASSERT_TRUE(co_await queue.connect());
  Repeated greedy(bed.reactor(), queue);
  GuardedCommand patient(bed.reactor(), NvmOpcode::kFlush, 0);
  queue.submit(greedy);
  queue.submit(patient);
  co_await patient.ended.wait();
  EXPECT_LE(greedy.endings, 2);
  co_await greedy.ended.wait();
  co_await end(queue);
}
TEST(QueueTest, ServesInTurn) { ControllerBed().run(serves_in_turn); }

}  // namespace
}  // namespace fairlead::host
