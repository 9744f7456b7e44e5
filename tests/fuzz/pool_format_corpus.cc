// Writes the seed corpus of pool_format_fuzz into the directory given: one valid structure a file.
//   pool_format_corpus tests/fuzz/corpus/pool_format
#include <cstdio>
#include <fmt/format.h>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "pool/test_samples.h"

namespace fairlead::pool {
namespace {

class Corpus {
 public:
  explicit Corpus(std::string directory) : directory_(std::move(directory)) {}

  void write(const std::string& name, const std::vector<uint8_t>& head, std::span<const std::byte> bytes) const {
    const std::string path = directory_ + "/" + name;
    std::FILE* out = std::fopen(path.c_str(), "wb");
    FL_CHECK(out != nullptr);
    FL_CHECK(std::fwrite(head.data(), 1, head.size(), out) == head.size());
    FL_CHECK(std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size());
    FL_CHECK(std::fclose(out) == 0);
  }

 private:
  std::string directory_;
};

void write_all(const Corpus& corpus) {
  corpus.write("superblock", {0}, encode(samples::superblock()));
  Superblock full = samples::superblock();
  full.is_destroyed = true;
  full.directory_bytes = 0;
  full.directory = {};
  while (full.disks.size() < kDisksMax) {
    full.disks.push_back({samples::uuid(static_cast<uint8_t>(100 + full.disks.size())), kMiB});
  }
  corpus.write("superblock_full", {0}, encode(full));

  // Without the zeroes behind it, which the fuzzer adds.
  std::vector<std::byte> batch = samples::batch();
  batch.resize(kBatchHeaderBytes + open_batch(batch)->payload.size());
  corpus.write("batch", {1}, batch);
  std::vector<std::byte> empty(batch_bytes(0));
  (void)seal_batch(empty, samples::batch_header());
  corpus.write("batch_empty", {1}, std::span(empty).first(kBatchHeaderBytes));

  corpus.write("directory", {2}, encode(samples::directory()));
  Directory nothing;
  nothing.pool_id = samples::uuid(1);
  corpus.write("directory_empty", {2}, encode(nothing));

  for (const Record& record : samples::records()) {
    std::vector<std::byte> payload;
    append_record(payload, record);
    corpus.write(fmt::format("record_{}", record.index() + 1), {3, 1}, payload);
  }
}

}  // namespace
}  // namespace fairlead::pool

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} DIRECTORY\n", argv[0]);
    return 2;
  }
  fairlead::pool::write_all(fairlead::pool::Corpus(argv[1]));
}
