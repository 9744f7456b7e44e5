// Writes the seed corpus of pdu_decoder_fuzz into the directory given: one valid stream a file.
//   pdu_decoder_corpus tests/fuzz/corpus/pdu_decoder
#include <array>
#include <cstdio>
#include <fmt/format.h>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "nvme/nqn.h"
#include "nvme/pdu_builder.h"

namespace fairlead::nvme {
namespace {

constexpr uint8_t kToHost = 1;
constexpr uint8_t kReady = 2;
constexpr uint8_t kHeaderDigest = 4;
constexpr uint8_t kDataDigest = 8;
constexpr uint8_t kMend = 16;

using Bytes = std::vector<std::byte>;

class Corpus {
 public:
  explicit Corpus(std::string directory) : directory_(std::move(directory)) {}

  // `length` bytes of header from buffer(), then data and room for its digest.
  void write(const char* name, uint8_t settings, uint8_t alignment, uint32_t length, const Bytes& data = {}) const {
    Bytes file = {std::byte{settings}, std::byte{alignment}};
    file.insert(file.end(), buffer_.begin(), buffer_.begin() + length);
    file.insert(file.end(), data.begin(), data.end());
    if ((settings & kDataDigest) != 0 && !data.empty()) file.resize(file.size() + kDigestSize);
    const std::string path = directory_ + "/" + name;
    std::FILE* out = std::fopen(path.c_str(), "wb");
    FL_CHECK(out != nullptr);
    FL_CHECK(std::fwrite(file.data(), 1, file.size(), out) == file.size());
    FL_CHECK(std::fclose(out) == 0);
  }
  PduBuffer buffer() { return std::span(buffer_).first<kPduHeaderMax>(); }
  TermReqBuffer term_buffer() { return buffer_; }

 private:
  std::string directory_;
  std::array<std::byte, kTermReqSizeMax> buffer_{};
};

SubmissionEntry io_command(NvmOpcode opcode, SglDescriptor sgl, uint32_t blocks) {
  SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.flags = kFlagsSgl;
  entry.cid = 1;
  entry.nsid = 1;
  entry.sgl = sgl;
  entry.cdw12 = blocks - 1;
  return entry;
}

void write_to_controller(Corpus& corpus) {
  const PduFormat plain;
  const PduFormat digests{.header_digest = true, .data_digest = true};
  constexpr uint8_t kDigests = kReady | kHeaderDigest | kDataDigest | kMend;
  corpus.write("icreq", 0, 0, build_ic_req(corpus.buffer(), {.header_digest = true, .data_alignment = 3}));
  const auto read = io_command(NvmOpcode::kRead, SglDescriptor::transport(4096), 8);
  corpus.write("read", kReady, 0, build_capsule_cmd(corpus.buffer(), plain, read, 0));
  corpus.write("read_digest", kDigests, 0, build_capsule_cmd(corpus.buffer(), digests, read, 0));
  const auto write = io_command(NvmOpcode::kWrite, SglDescriptor::in_capsule(0, 512), 1);
  corpus.write("write", kReady, 0, build_capsule_cmd(corpus.buffer(), plain, write, 512), Bytes(512));
  corpus.write("write_digest", kDigests, 0, build_capsule_cmd(corpus.buffer(), digests, write, 512), Bytes(512));
  auto dsm = io_command(NvmOpcode::kDatasetManagement, SglDescriptor::in_capsule(0, 32), 1);
  dsm.cdw10 = 1;
  dsm.cdw11 = kDsmDeallocate;
  corpus.write("dsm", kReady, 0, build_capsule_cmd(corpus.buffer(), plain, dsm, 32), Bytes(32, std::byte{1}));

  ConnectCommand connect;
  connect.prefix.fctype = static_cast<uint8_t>(FabricsType::kConnect);
  connect.prefix.sgl = SglDescriptor::in_capsule(0, sizeof(ConnectData));
  connect.sqsize = 31;
  ConnectData data;
  data.cntlid = kDynamicControllerId;
  write_zero_terminated(data.subnqn, kDiscoveryNqn);
  write_zero_terminated(data.hostnqn, "nqn.2014-08.org.nvmexpress:uuid:6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109");
  const auto data_bytes = std::as_bytes(std::span(&data, 1));
  const uint32_t length = build_capsule_cmd(corpus.buffer(), plain, to_submission_entry(connect), sizeof(ConnectData));
  corpus.write("connect", kReady, 0, length, Bytes(data_bytes.begin(), data_bytes.end()));
  PropertyCommand property;
  property.prefix.fctype = static_cast<uint8_t>(FabricsType::kPropertyGet);
  property.attrib = 1;
  corpus.write("property_get", kReady, 0, build_capsule_cmd(corpus.buffer(), plain, to_submission_entry(property), 0));

  const DataParameters piece{.cccid = 0, .ttag = 1, .offset = 0, .length = 64, .last = true};
  corpus.write("h2cdata", kReady, 0, build_h2c_data(corpus.buffer(), plain, piece), Bytes(64));
  corpus.write("h2cdata_digest", kDigests, 0, build_h2c_data(corpus.buffer(), digests, piece), Bytes(64));
  const PduViolation violation{FatalError::kInvalidHeaderField, 4, ""};
  corpus.write("h2ctermreq", kReady, 0,
               build_term_req(corpus.term_buffer(), Direction::kHostToController, violation, Bytes(24)));
}

void write_to_host(Corpus& corpus) {
  const PduFormat aligned{.header_digest = true, .data_digest = true, .data_alignment = 17};
  constexpr uint8_t kDigests = kToHost | kReady | kHeaderDigest | kDataDigest | kMend;
  corpus.write("icresp", kToHost, 0, build_ic_resp(corpus.buffer(), {.max_h2c_data = 65536}));
  corpus.write("capsuleresp", kToHost | kReady, 0, build_capsule_resp(corpus.buffer(), PduFormat{}, CompletionEntry{}));
  const DataParameters piece{.cccid = 1, .offset = 0, .length = 512, .last = true, .success = true};
  corpus.write("c2hdata", kToHost | kReady, 0, build_c2h_data(corpus.buffer(), PduFormat{}, piece), Bytes(512));
  corpus.write("c2hdata_aligned", kDigests, 17, build_c2h_data(corpus.buffer(), aligned, piece), Bytes(512));
  const R2tParameters r2t{.cccid = 1, .ttag = 2, .offset = 0, .length = 65536};
  corpus.write("r2t", kToHost | kReady, 0, build_r2t(corpus.buffer(), PduFormat{}, r2t));
  const PduViolation violation{FatalError::kHeaderDigest, 0x12345678, ""};
  corpus.write("c2htermreq", kToHost | kReady, 0,
               build_term_req(corpus.term_buffer(), Direction::kControllerToHost, violation, Bytes(72)));
}

}  // namespace
}  // namespace fairlead::nvme

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} DIRECTORY\n", argv[0]);
    return 2;
  }
  fairlead::nvme::Corpus corpus(argv[1]);
  fairlead::nvme::write_to_controller(corpus);
  fairlead::nvme::write_to_host(corpus);
}
