#include "gateway/access.h"

#include <gtest/gtest.h>

namespace fairlead::gateway {
namespace {

constexpr const char* kTokens =
    "# who may ask\n"
    "\n"
    "abcdefghijklmnopqrstuvwxyz admin\r\n"
    "  0123456789abcdef0123456789\tviewer\n"
    "hosthosthosthosthosthost host\n";

HttpRequest request_with(std::map<std::string, std::string> headers, std::string method = "GET",
                         std::string path = "/v1/volumes") {
  return {.method = std::move(method), .path = std::move(path), .headers = std::move(headers)};
}

int status_of(const Access& access, const HttpRequest& request) {
  const auto refusal = access.refuse(request);
  if (!refusal) return 0;
  EXPECT_EQ(refusal->content_type, "application/problem+json");
  return refusal->status;
}

TEST(TokensTest, AreReadWithTheirRoles) {
  const auto tokens = Tokens::parse(kTokens);
  ASSERT_TRUE(tokens) << to_string(tokens.error());
  EXPECT_EQ(tokens->role_of("abcdefghijklmnopqrstuvwxyz"), Role::kAdmin);
  EXPECT_EQ(tokens->role_of("0123456789abcdef0123456789"), Role::kViewer);
  EXPECT_EQ(tokens->role_of("hosthosthosthosthosthost"), Role::kHost);
  EXPECT_EQ(tokens->role_of("abcdefghijklmnopqrstuvwxy"), std::nullopt);
  EXPECT_EQ(tokens->role_of(""), std::nullopt);
}

TEST(TokensTest, BadLinesAreNamedAndNotShown) {
  for (const auto& [text, words] : std::map<std::string, std::string>{
           {"# nobody\n", "nobody could ask"},
           {"\nabcdefghijklmnopqrstuvwxyz\n", "line 2: expected a token and its role"},
           {"abcdefghijklmnopqrstuvwxyz boss\n", "line 1: expected a token and its role"},
           {"abcdefghijklmnopqrstuvwxyz admin too\n", "line 1: expected a token and its role"},
           {"secret admin\n", "line 1: the token is too easy to guess"},
       }) {
    const auto tokens = Tokens::parse(text);
    ASSERT_FALSE(tokens) << text;
    EXPECT_NE(to_string(tokens.error()).find(words), std::string::npos) << to_string(tokens.error());
    EXPECT_EQ(to_string(tokens.error()).find("secret"), std::string::npos);
  }
}

TEST(AccessTest, WithoutTokensOnlyThisMachineIsAHost) {
  const Access access(std::nullopt);
  for (const char* host : {"localhost", "LOCALHOST:7400", "127.0.0.1:7400", "127.3.2.1", "[::1]:7400", "[::1]"}) {
    EXPECT_EQ(status_of(access, request_with({{"host", host}}, "POST")), 0) << host;
  }
  for (const char* host : {"", "evil.example", "localhost.evil.example:7400", "127.0.0.1.evil.example", "10.0.0.1",
                           "[::2]", "localhost:7400:1"}) {
    EXPECT_EQ(status_of(access, request_with({{"host", host}})), 421) << host;
  }
}

TEST(AccessTest, PagesOfOtherSitesAreRefused) {
  const Access open(std::nullopt);
  const Access closed(*Tokens::parse(kTokens));
  const std::map<std::string, std::string> same = {{"host", "127.0.0.1:7400"},
                                                   {"origin", "http://127.0.0.1:7400"},
                                                   {"authorization", "Bearer abcdefghijklmnopqrstuvwxyz"}};
  EXPECT_EQ(status_of(open, request_with(same)), 0);
  EXPECT_EQ(status_of(closed, request_with(same)), 0);
  for (const char* origin :
       {"http://evil.example", "http://127.0.0.1:80", "null", "http://127.0.0.1:7400.evil.example"}) {
    auto headers = same;
    headers["origin"] = origin;
    EXPECT_EQ(status_of(open, request_with(headers)), 403) << origin;
    EXPECT_EQ(status_of(closed, request_with(headers)), 403) << origin;
  }
}

TEST(AccessTest, TokensOpenByRole) {
  const Access access(*Tokens::parse(kTokens));
  const auto with = [](std::string text) {
    return std::map<std::string, std::string>{{"authorization", std::move(text)}};
  };
  const std::string admin = "Bearer abcdefghijklmnopqrstuvwxyz";
  const std::string viewer = "bearer 0123456789abcdef0123456789";
  for (const char* method : {"GET", "HEAD", "POST", "PATCH", "DELETE"}) {
    const bool changes = method != std::string_view("GET") && method != std::string_view("HEAD");
    EXPECT_EQ(status_of(access, request_with(with(admin), method)), 0) << method;
    EXPECT_EQ(status_of(access, request_with(with(viewer), method)), changes ? 403 : 0) << method;
    EXPECT_EQ(status_of(access, request_with({}, method)), 401) << method;
  }
  // A host may look, and answer what it is asked.
  const std::string host = "Bearer hosthosthosthosthosthost";
  EXPECT_EQ(status_of(access, request_with(with(host))), 0);
  EXPECT_EQ(status_of(access, request_with(with(host), "POST", "/v1/volumes/db/frozen")), 0);
  EXPECT_EQ(status_of(access, request_with(with(viewer), "POST", "/v1/volumes/db/frozen")), 403);
  for (const auto& [method, path] :
       std::vector<std::pair<const char*, const char*>>{{"PATCH", "/v1/volumes/db"},
                                                        {"PATCH", "/v1/volumes/db/frozen"},
                                                        {"POST", "/v1/volumes"},
                                                        {"POST", "/v1/volumes/frozen"},
                                                        {"POST", "/v1/volumes//frozen"},
                                                        {"POST", "/v1/volumes/db/force"},
                                                        {"POST", "/v1/snapshots/db/frozen"},
                                                        {"DELETE", "/v1/volumes/db"}}) {
    EXPECT_EQ(status_of(access, request_with(with(host), method, path)), 403) << method << ' ' << path;
  }
  for (const char* wrong : {"Bearer ", "Bearer", "Basic abcdefghijklmnopqrstuvwxyz",
                            "Bearer abcdefghijklmnopqrstuvwxyz ", "abcdefghijklmnopqrstuvwxyz"}) {
    EXPECT_EQ(status_of(access, request_with(with(wrong))), 401) << wrong;
  }
  // Those who look whether it lives have no token.
  EXPECT_EQ(status_of(access, request_with({}, "GET", "/livez")), 0);
  EXPECT_EQ(status_of(access, request_with({}, "GET", "/readyz")), 0);
  EXPECT_EQ(status_of(access, request_with({}, "GET", "/metrics")), 401);
}

}  // namespace
}  // namespace fairlead::gateway
