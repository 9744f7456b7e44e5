#include "kube/disk_pool.h"

#include <gtest/gtest.h>

#include "kube/http_api.h"
#include "kube/words.h"

namespace fairlead::kube {
namespace {

TEST(Quantity, is_read_as_kubernetes_writes_it) {
  const std::pair<Json, uint64_t> good[] = {
      {107374182400U, 107374182400U},
      {"100Gi", 107374182400U},
      {"1.5Gi", 1610612736U},
      {"2G", 2000000000U},
      {"12k", 12000U},
      {"1E", 1000000000000000000U},
      {"1e3", 1000U},
      {"2E2", 200U},
      {"1500m", 2U},
      {"0.5", 1U},
      {"1Ti", uint64_t{1} << 40},
  };
  for (const auto& [text, bytes] : good) {
    const auto parsed = parse_quantity(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const Json& bad : {Json("-1"), Json("1GiB"), Json(""), Json("Gi"), Json("100Ei"), Json("1 Gi"), Json(nullptr),
                          Json("inf"), Json("nan"), Json(-5), Json("0x10")}) {
    EXPECT_FALSE(parse_quantity(bad)) << bad;
  }
}

TEST(Quantity, is_written_in_full) {
  const std::pair<uint64_t, const char*> table[] = {{0, "0"},
                                                    {1000, "1000"},
                                                    {1024, "1Ki"},
                                                    {uint64_t{1536} << 20, "1536Mi"},
                                                    {uint64_t{20} << 30, "20Gi"},
                                                    {uint64_t{3} << 40, "3Ti"}};
  for (const auto& [bytes, text] : table) {
    EXPECT_EQ(to_quantity(bytes), text);
    EXPECT_EQ(*parse_quantity(text), bytes);
  }
}

TEST(Time, is_written_in_utc) {
  EXPECT_EQ(to_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(to_time(1772366399999), "2026-03-01T11:59:59Z");
  EXPECT_EQ(to_micro_time(1772366399250), "2026-03-01T11:59:59.250000Z");
}

TEST(DiskPool, the_time_of_a_condition_is_that_of_its_change) {
  Json disk_pool = {{"metadata", {{"name", "fast"}, {"generation", 2}}}, {"spec", Json::object()}};
  const Json pool = {{"id", "x"}, {"status", {{"state", "online"}, {"replicas", 1U}}}};
  disk_pool["status"] = status_of(disk_pool, pool, standing_of(pool), 1000);
  disk_pool["status"]["conditions"].push_back({{"type", "Other"}, {"status", "True"}});
  const Json later = status_of(disk_pool, pool, standing_of(pool), 9000);
  EXPECT_EQ(later["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:01Z");
  EXPECT_EQ(later["conditions"][0]["type"], "Other");
  const Json failed = {{"id", "x"}, {"status", {{"state", "failed"}, {"why", "it burns"}, {"replicas", 1U}}}};
  const Json worse = status_of(disk_pool, failed, standing_of(failed), 9000);
  EXPECT_EQ(worse["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:09Z");
  EXPECT_EQ(worse["conditions"][1]["message"], "it burns");
  EXPECT_EQ(difference_of(disk_pool["status"], worse), Difference::kWords);
}

TEST(DiskPool, what_is_full_is_no_change_of_words) {
  const Json before = {{"state", "online"}, {"used", "1Mi"}};
  EXPECT_EQ(difference_of(before, {{"used", "1Mi"}, {"state", "online"}}), Difference::kNone);
  EXPECT_EQ(difference_of(before, {{"used", "2Mi"}, {"state", "online"}}), Difference::kNumbers);
  EXPECT_EQ(difference_of(before, {{"used", "1Mi"}, {"state", "failed"}}), Difference::kWords);
}

TEST(DiskPool, labels_are_the_disk_pools) {
  const Json wanted = {{"labels", {{"a", "1"}, {"b", "2"}}}, {"spec", {{"evacuating", false}}}};
  Json pool = {{"labels", {{"b", "3"}, {"c", "4"}}}, {"spec", {{"evacuating", true}}}};
  const Json patch = pool_patch(wanted, pool);
  pool.merge_patch(patch);
  EXPECT_TRUE(is_same(pool["labels"], wanted["labels"]));
  EXPECT_EQ(pool["spec"]["evacuating"], false);
  EXPECT_TRUE(pool_patch(wanted, pool).is_null());
}

TEST(KubeStatus, says_what_to_do_next) {
  const auto code = [](int status, const char* reason) {
    return problem_of_status(status, {{"message", "no"}, {"reason", reason}}).error.code;
  };
  EXPECT_EQ(code(401, "Unauthorized"), Code::kPermissionDenied);
  EXPECT_EQ(code(403, "Forbidden"), Code::kPermissionDenied);
  EXPECT_EQ(code(404, "NotFound"), Code::kNotFound);
  EXPECT_EQ(code(409, "AlreadyExists"), Code::kAlreadyExists);
  EXPECT_EQ(code(409, "Conflict"), Code::kMiscompare);
  EXPECT_EQ(code(410, "Expired"), Code::kOutOfRange);
  EXPECT_EQ(code(422, "Invalid"), Code::kInvalidArgument);
  EXPECT_EQ(code(429, "TooManyRequests"), Code::kUnreachable);
  EXPECT_EQ(code(500, "InternalError"), Code::kUnreachable);
  EXPECT_EQ(code(504, "Timeout"), Code::kTimedOut);
  EXPECT_EQ(to_string(problem_of_status(503, Json())), "the API server answers: status 503");
}

}  // namespace
}  // namespace fairlead::kube
