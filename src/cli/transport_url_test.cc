#include "cli/transport_url.h"

#include <gtest/gtest.h>

namespace fairlead::cli {
namespace {

constexpr const char* kNqn = "nqn.2014-08.org.nvmexpress:uuid:6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109";

TEST(TransportUrlTest, TakesItApart) {
  const struct {
    std::string text;
    const char* address;
    const char* nqn;
    std::optional<uint32_t> nsid;
  } kTable[] = {
      {fmt::format("nvme+tcp://127.0.0.1:4421/{}", kNqn), "127.0.0.1:4421", kNqn, {}},
      {fmt::format("nvme+tcp://10.0.0.1/{}?ns=2", kNqn), "10.0.0.1:4420", kNqn, 2},
      {fmt::format("nvme+tcp://[fe80::1]:5/{}?ns=4294967293", kNqn), "[fe80::1]:5", kNqn, 4294967293},
      {"nvme+tcp://[::1]/nqn.2020-01.org.example:a/b", "[::1]:4420", "nqn.2020-01.org.example:a/b", {}},
      {"nvme+tcp://localhost/nqn.2020-01.org.example:a", "127.0.0.1:4420", "nqn.2020-01.org.example:a", {}},
      {"nvme+tcp://10.0.0.1/testnqn", "10.0.0.1:4420", "testnqn", {}},
      {"nvme+tcp://localhost:1/nqn.2020-01.org.example:a?b?ns=3", "127.0.0.1:1", "nqn.2020-01.org.example:a?b", 3},
  };
  for (const auto& [text, address, nqn, nsid] : kTable) {
    ASSERT_TRUE(is_transport_url(text));
    const Result<TransportUrl> url = parse_transport_url(text);
    ASSERT_TRUE(url) << text << ": " << to_string(url.error());
    EXPECT_EQ(to_string(url->address), address);
    EXPECT_EQ(url->nqn, nqn);
    EXPECT_EQ(url->nsid, nsid);
    const Result<TransportUrl> again = parse_transport_url(to_string(*url));
    ASSERT_TRUE(again) << to_string(*url);
    EXPECT_EQ(*again, *url);
  }
}

TEST(TransportUrlTest, RefusesWhatIsNotOne) {
  for (const char* text : {
           "nvme+tcp://",
           "nvme+tcp://127.0.0.1:4420",
           "nvme+tcp://127.0.0.1:4420/",
           "nvme+tcp:///nqn.2020-01.org.example:a",
           "nvme+tcp://storage.example.org/nqn.2020-01.org.example:a",
           "nvme+tcp://localhost.example.org/nqn.2020-01.org.example:a",
           "nvme+tcp://127.0.0.1:99999/nqn.2020-01.org.example:a",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:\x1b[2J",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?ns=",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?ns=0",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?ns=1x",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?ns=4294967295",
           "nvme+tcp://127.0.0.1/nqn.2020-01.org.example:a?nsid=1",
       }) {
    EXPECT_FALSE(parse_transport_url(text)) << text;
  }
  EXPECT_FALSE(is_transport_url("nvme+rdma://127.0.0.1/nqn.2020-01.org.example:a"));
  EXPECT_FALSE(is_transport_url("disk.img"));
}

}  // namespace
}  // namespace fairlead::cli
