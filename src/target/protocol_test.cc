// NVMe/TCP as hosts get it wrong, and right: digests, termination requests, R2T, SGLs, flow control.
#include <cstddef>

#include "sim/prng.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::FatalError;
using nvme::StatusCode;

template <typename T>
std::vector<std::byte> raw(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

nvme::PduHeader header(nvme::PduType type, uint8_t hlen, uint32_t plen) {
  nvme::PduHeader common;
  common.type = static_cast<uint8_t>(type);
  common.hlen = hlen;
  common.plen = plen;
  return common;
}

nvme::CapsuleCmdPdu flush_capsule() {
  nvme::CapsuleCmdPdu pdu;
  pdu.header = header(nvme::PduType::kCapsuleCmd, 72, 72);
  pdu.command.flags = nvme::kFlagsSgl;
  pdu.command.nsid = 1;
  pdu.command.cid = 0x4444;
  return pdu;
}

std::vector<std::byte> ic_req(uint16_t pfv, uint8_t hpda) {
  nvme::IcReqPdu pdu;
  pdu.header = header(nvme::PduType::kIcReq, 128, 128);
  pdu.pfv = pfv;
  pdu.hpda = hpda;
  return raw(pdu);
}

std::vector<std::byte> h2c_data(uint16_t cid, uint16_t tag, uint32_t offset) {
  nvme::H2cDataPdu pdu;
  pdu.header = header(nvme::PduType::kH2cData, 24, 24 + 512);
  pdu.header.pdo = 24;
  pdu.header.flags = nvme::kPduLast;
  pdu.cccid = cid;
  pdu.ttag = tag;
  pdu.datao = offset;
  pdu.datal = 512;
  auto bytes = raw(pdu);
  bytes.resize(24 + 512);
  return bytes;
}

std::vector<std::byte> capsule_with(void (*change)(nvme::CapsuleCmdPdu&)) {
  nvme::CapsuleCmdPdu pdu = flush_capsule();
  change(pdu);
  return raw(pdu);
}

struct Violation {
  const char* name;
  bool after_connect;
  std::vector<std::byte> bytes;
  FatalError error;
  uint32_t info;
  size_t offending;  // bytes of the header sent back
};

std::vector<Violation> violations() {
  using enum FatalError;
  std::vector<Violation> all;
  all.push_back({"a command before ICReq", false, raw(flush_capsule()), kPduSequence, 0, 8});
  all.push_back({"a later format", false, ic_req(1, 0), kUnsupportedParameter, 8, 128});
  all.push_back({"an alignment above 31", false, ic_req(0, 32), kInvalidHeaderField, 10, 128});
  all.push_back({"ICReq again", true, ic_req(0, 0), kPduSequence, 0, 8});
  all.push_back({"an unknown type", true, std::vector<std::byte>(8, std::byte{0x55}), kInvalidHeaderField, 0, 8});
  all.push_back(
      {"a controller's PDU", true, capsule_with([](auto& p) { p.header.type = 5; }), kInvalidHeaderField, 0, 8});
  all.push_back({"HLEN", true, capsule_with([](auto& p) { p.header.hlen = 71; }), kInvalidHeaderField, 2, 8});
  all.push_back({"PLEN short", true, capsule_with([](auto& p) { p.header.plen = 71; }), kInvalidHeaderField, 4, 8});
  all.push_back({"PLEN huge", true, capsule_with([](auto& p) {
                   p.header.pdo = 72;
                   p.header.plen = 0xffffffff;
                 }),
                 kDataTransferLimitExceeded, 0, 8});
  all.push_back({"in-capsule data above the limit", true, capsule_with([](auto& p) {
                   p.header.pdo = 72;
                   p.header.plen = 72 + target::TargetOptions{}.in_capsule_bytes + 1;
                 }),
                 kDataTransferLimitExceeded, 0, 8});
  all.push_back({"PDO in the header", true, capsule_with([](auto& p) {
                   p.header.pdo = 68;
                   p.header.plen = 584;
                 }),
                 kInvalidHeaderField, 3, 8});
  all.push_back({"a digest nobody asked for", true, capsule_with([](auto& p) { p.header.flags = 1; }),
                 kInvalidHeaderField, 1, 8});
  all.push_back(
      {"a flag that is none", true, capsule_with([](auto& p) { p.header.flags = 0x10; }), kInvalidHeaderField, 1, 8});
  all.push_back(
      {"data for no command", true, h2c_data(1, 0xffff, 0), kInvalidHeaderField, offsetof(nvme::H2cDataPdu, ttag), 24});
  all.push_back({"data for a command that waits for none", true, h2c_data(1, 0, 0), kInvalidHeaderField,
                 offsetof(nvme::H2cDataPdu, ttag), 24});
  return all;
}

Task<void> each_violation(TargetBed& bed) {
  const auto bystander = co_await bed.open_host();
  CO_ASSERT_TRUE(bystander.has_value());
  for (const Violation& each : violations()) {
    NvmeConnection& host = bed.make_connection();
    if (each.after_connect) {
      CO_ASSERT_TRUE((co_await host.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
    } else {
      CO_ASSERT_TRUE((co_await host.open_stream(bed.address)).has_value());
    }
    host.send_raw(each.bytes);
    co_await host.wait_closed();
    EXPECT_TRUE(host.termination().has_value()) << each.name;
    if (!host.termination()) continue;
    EXPECT_EQ(host.termination()->error, each.error) << each.name;
    EXPECT_EQ(host.termination()->info, each.info) << each.name;
    const std::vector<std::byte> start(each.bytes.begin(), each.bytes.begin() + static_cast<ptrdiff_t>(each.offending));
    EXPECT_EQ(host.termination()->offending, start) << each.name;
  }
  std::vector<std::byte> block(4096);
  EXPECT_TRUE(succeeded(co_await (*bystander)->io().read(1, 0, 1, block)));
  EXPECT_FALSE((*bystander)->admin().is_lost());
}

TEST(Protocol, EachViolationIsToldAndEndsItsConnectionAlone) { run_in_worlds(each_violation); }

// A write whose R2T comes, and whose data is the test's to send.
Task<void> bad_transfer(TargetBed& bed, uint32_t offset, uint16_t wrong_cid, uint8_t flags, FatalError error,
                        uint32_t info) {
  NvmeHost& host = bed.make_host();
  CO_ASSERT_TRUE((co_await host.open(bed.address, TargetBed::io_options(1))).has_value());
  NvmeConnection& io = host.io();
  nvme::SubmissionEntry write;
  write.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kWrite);
  write.flags = nvme::kFlagsSgl;
  write.nsid = 1;
  write.sgl = nvme::SglDescriptor::transport(4096);
  // The client does not know of any data, so it leaves the R2T unanswered, and says so.
  bed.tolerates_complaints = true;
  io.ignore_r2t(true);
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> done;
  const uint16_t cid = io.next_cid();
  scope.spawn(keep(io.submit(write, {.keep_sgl = true}), done));
  while (io.r2ts() == 0 && !io.is_lost()) co_await bed.sleep(std::chrono::milliseconds(5));
  auto bytes = h2c_data(static_cast<uint16_t>(cid ^ wrong_cid), io.last_r2t().ttag.get(), offset);
  bytes[1] = static_cast<std::byte>(flags);
  io.send_raw(bytes);
  co_await scope.close();
  EXPECT_EQ(code_of(*done), kLost);
  CO_ASSERT_TRUE(io.termination().has_value());
  EXPECT_EQ(io.termination()->error, error);
  EXPECT_EQ(io.termination()->info, info);
}

Task<void> bad_transfers(TargetBed& bed) {
  co_await bad_transfer(bed, 512, 0, 0, FatalError::kDataOutOfRange, 0);
  co_await bad_transfer(bed, 4096, 0, nvme::kPduLast, FatalError::kDataOutOfRange, 0);
  co_await bad_transfer(bed, 0, 1, 0, FatalError::kInvalidHeaderField, offsetof(nvme::H2cDataPdu, cccid));
  co_await bad_transfer(bed, 0, 0, nvme::kPduLast, FatalError::kInvalidHeaderField, 1);
}

TEST(Protocol, DataThatDoesNotFitItsTransfer) { run_in_worlds(bad_transfers); }

Task<void> too_many_commands(TargetBed& bed) {
  HostOptions options = TargetBed::io_options(1);
  options.io_entries = 4;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  QueueOptions small = TargetBed::admin_options();
  small.entries = 4;
  NvmeConnection& other = bed.make_connection();
  CO_ASSERT_TRUE((co_await other.open_and_connect(bed.address, small)).has_value());
  CO_ASSERT_OK(co_await other.enable());
  // Event requests never complete by themselves: with them the count of commands in flight is exact.
  Scope scope(bed.reactor());
  std::array<std::optional<Result<Completion>>, 5> events;
  for (auto& each : events) scope.spawn(keep(other.async_event(), each));
  co_await scope.close();
  CO_ASSERT_TRUE(other.termination().has_value());
  EXPECT_EQ(other.termination()->error, FatalError::kPduSequence);
  EXPECT_TRUE(succeeded(co_await admin.keep_alive()));
}

TEST(Protocol, MoreCommandsThanTheQueueHasEntries) { run_in_worlds(too_many_commands); }

Task<void> host_terminates(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  nvme::TermReqPdu term;
  term.header = header(nvme::PduType::kH2cTermReq, 24, 24);
  term.fes = 1;
  (*opened)->admin().send_raw(raw(term));
  co_await (*opened)->admin().wait_closed();
  co_await (*opened)->io().wait_closed();
  EXPECT_FALSE((*opened)->admin().termination().has_value());
  co_await bed.sleep(std::chrono::milliseconds(50));
  CO_ASSERT_TRUE(bed.observed.reasons.size() == 1);
  EXPECT_EQ(bed.observed.reasons[0], "the host terminated the connection");
}

TEST(Protocol, AHostTerminates) { run_in_worlds(host_terminates); }

Task<void> deaf_violator(TargetBed& bed) {
  // It breaks the protocol, does not read what it is told and does not go: it is closed all the same.
  NvmeConnection& host = bed.make_connection();
  CO_ASSERT_TRUE((co_await host.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
  const Instant start = bed.reactor().now();
  host.pause_reading(true);
  host.send_raw(std::vector<std::byte>(100'000, std::byte{0x77}));
  while (bed.target().controller_count() > 0) co_await bed.sleep(std::chrono::milliseconds(10));
  EXPECT_LE(bed.reactor().now() - start, std::chrono::seconds(3));
  host.cut();
}

TEST(Protocol, ADeafViolatorIsClosed) { run_in_worlds(deaf_violator); }

HostOptions with_digests() {
  HostOptions options = TargetBed::io_options(1);
  options.queue.header_digest = true;
  options.queue.data_digest = true;
  return options;
}

Task<void> wrong_digests(TargetBed& bed) {
  const auto opened = co_await bed.open_host(with_digests());
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const auto old_data = pattern(64 * kKiB, 1);
  const auto new_data = pattern(64 * kKiB, 2);
  CO_ASSERT_OK(co_await io.write(1, 0, 16, old_data));
  for (const uint32_t blocks : {1U, 2U, 16U}) {
    const auto data = std::span(new_data).first(uint64_t{blocks} * 4096);
    // The 16 blocks go by R2T: it is their data PDU that has the digest.
    io.damage_next(Damage::kDataDigest);
    const auto damaged = co_await io.write(1, 0, blocks, data);
    EXPECT_EQ(code_of(damaged), StatusCode::kTransientTransportError) << blocks;
    EXPECT_FALSE(damaged && damaged->status.do_not_retry);
    EXPECT_TRUE(succeeded(co_await io.compare(1, 0, 16, old_data))) << "nothing was written";
  }
  EXPECT_TRUE(succeeded(co_await io.write(1, 0, 16, new_data)));
  io.damage_next(Damage::kHeaderDigest);
  EXPECT_EQ(code_of(co_await io.flush(1)), kLost);
  CO_ASSERT_TRUE(io.termination().has_value());
  EXPECT_EQ(io.termination()->error, FatalError::kHeaderDigest);
  EXPECT_EQ(io.termination()->offending.size(), 76U);
  Le32 sent;
  std::memcpy(static_cast<void*>(&sent), io.termination()->offending.data() + 72, 4);
  EXPECT_EQ(io.termination()->info, sent);
  EXPECT_FALSE((*opened)->admin().is_lost());
}

TEST(Digest, DamagedDataIsRefusedADamagedHeaderEndsTheConnection) { run_in_worlds(wrong_digests); }

Task<void> digests_by_halves(TargetBed& bed) {
  for (int i = 0; i < 4; ++i) {
    HostOptions options = TargetBed::io_options(1);
    options.queue.header_digest = (i & 1) != 0;
    options.queue.data_digest = (i & 2) != 0;
    for (const int alignment : {0, 1, 31}) {
      options.queue.data_alignment = static_cast<uint8_t>(alignment);
      const auto opened = co_await bed.open_host(options);
      CO_ASSERT_TRUE(opened.has_value());
      const auto data = pattern(12 * kKiB, static_cast<uint64_t>(i));
      std::vector<std::byte> back(data.size());
      CO_ASSERT_OK(co_await (*opened)->io().write(1, 8, 3, data));
      CO_ASSERT_OK(co_await (*opened)->io().read(1, 8, 3, back));
      EXPECT_EQ(back, data);
    }
  }
}

TEST(Digest, EachByItselfAndEachAlignment) { run_in_worlds(digests_by_halves); }

Task<void> large_writes(TargetBed& bed) {
  for (const uint32_t piece : {4096U, 4096U * 3, 1U << 20}) {
    HostOptions options = with_digests();
    options.queue.h2c_pdu_max = piece;
    const auto opened = co_await bed.open_host(options);
    CO_ASSERT_TRUE(opened.has_value());
    NvmeConnection& io = (*opened)->io();
    const auto data = pattern(48 * kKiB, piece);
    CO_ASSERT_OK(co_await io.write(1, 32, 12, data));
    EXPECT_EQ(io.r2ts(), 1U);
    CO_ASSERT_OK(co_await io.write(1, 0, 2, std::span(data).first(8192)));
    EXPECT_EQ(io.r2ts(), 1U) << "travels in its capsule";
    std::vector<std::byte> back(data.size());
    CO_ASSERT_OK(co_await io.read(1, 32, 12, back));
    EXPECT_EQ(back, data);
  }
}

TEST(R2t, LargeWritesInPieces) { run_in_worlds(large_writes); }

Task<void> capsule_sizes(TargetBed& bed) {
  HostOptions options = TargetBed::io_options(1);
  const uint32_t capsule = bed.options.target.in_capsule_bytes;
  options.queue.in_capsule_max = capsule;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const auto data = pattern(capsule + 4096, 9);
  CO_ASSERT_OK(co_await io.write(1, 0, capsule / 4096, std::span(data).first(capsule)));
  EXPECT_EQ(io.r2ts(), 0U);
  CO_ASSERT_OK(co_await io.write(1, 0, capsule / 4096 + 1, data));
  EXPECT_EQ(io.r2ts(), 1U);
  CO_ASSERT_OK(co_await io.compare(1, 0, capsule / 4096 + 1, data));
}

TEST(R2t, WhatFitsTravelsInTheCapsule) { run_in_worlds(capsule_sizes, {.target = {.in_capsule_bytes = 16 * 1024}}); }
TEST(R2t, WhatFitsTravelsInALargeCapsule) { TargetBed().run(capsule_sizes); }

nvme::SubmissionEntry write_entry(nvme::SglDescriptor sgl) {
  nvme::SubmissionEntry write;
  write.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kWrite);
  write.flags = nvme::kFlagsSgl;
  write.nsid = 1;
  write.sgl = sgl;
  return write;
}

Task<void> descriptors(TargetBed& bed) {
  const auto opened = co_await bed.open_host(with_digests());
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const auto capsule = pattern(8192, 77);
  nvme::SglDescriptor odd = nvme::SglDescriptor::in_capsule(0, 4096);
  struct Case {
    nvme::SglDescriptor sgl;
    uint8_t identifier;
    StatusCode status;
  };
  const Case cases[] = {
      {nvme::SglDescriptor::in_capsule(4096, 4096), 0x01, StatusCode::kSuccess},
      {nvme::SglDescriptor::in_capsule(1000, 4096), 0x01, StatusCode::kSuccess},
      {nvme::SglDescriptor::in_capsule(4097, 4096), 0x01, StatusCode::kDataSglLengthInvalid},
      {nvme::SglDescriptor::in_capsule(8193, 0), 0x01, StatusCode::kSglOffsetInvalid},
      {nvme::SglDescriptor::in_capsule(~uint64_t{0}, 4096), 0x01, StatusCode::kSglOffsetInvalid},
      {odd, 0x00, StatusCode::kSglTypeInvalid},
      {odd, 0x11, StatusCode::kSglTypeInvalid},
      {odd, 0x20, StatusCode::kSglTypeInvalid},
      {odd, 0x30, StatusCode::kSglTypeInvalid},
      {odd, 0x40, StatusCode::kSglTypeInvalid},
      {odd, 0xff, StatusCode::kSglTypeInvalid},
  };
  for (const Case& each : cases) {
    nvme::SubmissionEntry write = write_entry(each.sgl);
    write.sgl.identifier = each.identifier;
    const auto written = co_await io.submit(write, {.keep_sgl = true, .capsule = capsule});
    EXPECT_EQ(code_of(written), each.status) << int{each.identifier} << ' ' << each.sgl.address.get();
    if (each.status != StatusCode::kSuccess) continue;
    EXPECT_TRUE(succeeded(
        co_await io.compare(1, 0, 1, std::span(capsule).subspan(static_cast<size_t>(each.sgl.address.get()), 4096))));
  }
  // A read has nowhere to go but the transport.
  nvme::SubmissionEntry read = write_entry(nvme::SglDescriptor::in_capsule(0, 4096));
  read.opcode = static_cast<uint8_t>(nvme::NvmOpcode::kRead);
  EXPECT_EQ(code_of(co_await io.submit(read, {.keep_sgl = true, .capsule = capsule})), StatusCode::kSglTypeInvalid);
  // PRPs, and both bits of FUSE.
  nvme::SubmissionEntry prp = write_entry(odd);
  prp.flags = 0;
  EXPECT_EQ(code_of(co_await io.submit(prp, {.keep_sgl = true, .capsule = capsule})), StatusCode::kInvalidField);
  prp.flags = nvme::kFlagsSgl | 3;
  EXPECT_EQ(code_of(co_await io.submit(prp, {.keep_sgl = true, .capsule = capsule})), StatusCode::kInvalidField);
  EXPECT_FALSE(io.is_lost());
}

TEST(Sgl, EachKind) { run_in_worlds(descriptors); }

Task<void> flow_control(TargetBed& bed) {
  for (const bool disabled : {false, true}) {
    QueueOptions queue = TargetBed::admin_options();
    queue.disable_sq_flow_control = disabled;
    queue.entries = 8;
    NvmeConnection& admin = bed.make_connection();
    CO_ASSERT_TRUE((co_await admin.open(bed.address, queue)).has_value());
    const auto connected = co_await admin.connect();
    CO_ASSERT_OK(connected);
    EXPECT_EQ(connected->sqhd, disabled ? 0xffff : 1);
    CO_ASSERT_OK(co_await admin.enable());
    std::vector<std::byte> page(4096);
    for (uint16_t i = 0; i < 20; ++i) {
      // Connect, setting and getting a property came before.
      const auto got = co_await admin.identify(nvme::Cns::kController, 0, page);
      CO_ASSERT_OK(got);
      EXPECT_EQ(got->in_data, disabled);
      if (!disabled) EXPECT_EQ(got->sqhd, (4 + i) % 8);
    }
  }
}

TEST(Protocol, SqFlowControlOrNot) { run_in_worlds(flow_control); }

Task<void> garbage(TargetBed& bed) {
  sim::Prng random(bed.options.seed);
  const auto bystander = co_await bed.open_host();
  CO_ASSERT_TRUE(bystander.has_value());
  bed.tolerates_complaints = true;
  for (int i = 0; i < 60; ++i) {
    NvmeConnection& host = bed.make_connection();
    if (i % 2 == 0) {
      CO_ASSERT_TRUE((co_await host.open_stream(bed.address)).has_value());
    } else {
      CO_ASSERT_TRUE((co_await host.open_and_connect(bed.address, TargetBed::admin_options())).has_value());
    }
    // A good PDU with a few bits wrong, then another, then half of one.
    for (int pdus = 0; pdus < 4; ++pdus) {
      auto bytes = pdus % 2 == 0 ? raw(flush_capsule()) : h2c_data(1, 0, 0);
      for (uint64_t flips = random.below(4); flips > 0; --flips) {
        bytes[random.below(bytes.size())] ^= static_cast<std::byte>(1U << random.below(8));
      }
      if (pdus == 3) bytes.resize(random.below(bytes.size()) + 1);
      host.send_raw(bytes);
    }
    co_await bed.sleep(std::chrono::milliseconds(random.below(20)));
    if (random.coin()) host.cut();
  }
  std::vector<std::byte> block(4096);
  EXPECT_TRUE(succeeded(co_await (*bystander)->io().read(1, 0, 1, block)));
}

TEST(Protocol, GarbageHarmsNobodyElse) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    BedOptions options;
    options.seed = seed * 10;
    run_in_worlds(garbage, options);
  }
}

}  // namespace
}  // namespace fairlead::testing
