// Writes the seed corpus of mirror_control_fuzz into the directory given: one valid message, or state, a file.
//   mirror_control_corpus tests/fuzz/corpus/mirror_control
#include <cstdio>
#include <fmt/format.h>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "mirror/test_samples.h"

namespace fairlead::mirror {
namespace {

void write(const std::string& path, uint8_t what, const std::vector<std::byte>& bytes) {
  std::FILE* out = std::fopen(path.c_str(), "wb");
  FL_CHECK(out != nullptr);
  FL_CHECK(std::fputc(what, out) == what);
  FL_CHECK(std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size());
  FL_CHECK(std::fclose(out) == 0);
}

void write_all(const std::string& directory) {
  for (const RequestBody& body : samples::bodies()) {
    write(fmt::format("{}/request_{}", directory, body.index() + 1), 0, encode(samples::request(body)));
  }
  for (const Reply& reply : samples::replies()) {
    write(fmt::format("{}/reply_{}", directory, reply.index() + 1), 1, encode(reply));
  }
  write(directory + "/state", 2, encode(samples::state()));
  write(directory + "/snapshot", 3, encode(samples::snapshot()));
  write(directory + "/state_new", 2, encode(ReplicaState{}));
}

}  // namespace
}  // namespace fairlead::mirror

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} DIRECTORY\n", argv[0]);
    return 2;
  }
  fairlead::mirror::write_all(argv[1]);
}
