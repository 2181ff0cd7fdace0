// SPDX-License-Identifier: Apache-2.0
#include "history/memory_history_store.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::history {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Event At(int64_t time, ItemId item) { return {.item = item, .timestamp_ms = time}; }

std::vector<ItemId> Items(UserHistoryStore& store, const std::string& user, int limit = 100) {
  std::vector<ItemId> items;
  const auto events = store.Get(user, limit);
  EXPECT_TRUE(events.ok());
  for (const Event& event : *events) items.push_back(event.item);
  return items;
}

TEST(MemoryHistoryStoreTest, KeepsTimeOrderAndTheNewest) {
  MemoryHistoryStore store({.max_events = 4});
  EXPECT_THAT(Items(store, "u"), IsEmpty());
  ASSERT_TRUE(store.Append("u", {At(30, 3), At(10, 1)}).ok());
  ASSERT_TRUE(store.Append("u", {At(20, 2), At(30, 4)}).ok());
  EXPECT_THAT(Items(store, "u"), ElementsAre(1, 2, 3, 4));
  ASSERT_TRUE(store.Append("u", {At(40, 5), At(5, 0)}).ok());
  EXPECT_THAT(Items(store, "u"), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(Items(store, "u", 2), ElementsAre(4, 5));
  EXPECT_THAT(Items(store, "u", 0), IsEmpty());
  EXPECT_THAT(Items(store, "u", -1), IsEmpty());
  EXPECT_THAT(Items(store, "v"), IsEmpty());
}

TEST(MemoryHistoryStoreTest, ForgetsTheUserUsedLongestAgo) {
  MemoryHistoryStore store({.max_users = 2});
  ASSERT_TRUE(store.Append("a", {At(1, 1)}).ok());
  ASSERT_TRUE(store.Append("b", {At(1, 2)}).ok());
  EXPECT_THAT(Items(store, "a"), ElementsAre(1));
  ASSERT_TRUE(store.Append("c", {At(1, 3)}).ok());
  EXPECT_EQ(store.users(), 2u);
  EXPECT_THAT(Items(store, "b"), IsEmpty());
  EXPECT_THAT(Items(store, "a"), ElementsAre(1));
}

TEST(MemoryHistoryStoreTest, RefusesBadIdsAndTakesAnyBytes) {
  MemoryHistoryStore store({.max_user_id_bytes = 8});
  EXPECT_EQ(store.Append("", {At(1, 1)}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Append("123456789", {At(1, 1)}).code(), absl::StatusCode::kInvalidArgument);
  const std::string odd("../\0';", 6);
  EXPECT_TRUE(store.Append(odd, {At(1, 9)}).ok());
  EXPECT_THAT(Items(store, odd), ElementsAre(9));
}

TEST(MemoryHistoryStoreTest, ManyThreads) {
  MemoryHistoryStore store({.max_users = 20, .max_events = 8});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string user = absl::StrCat((t * 7 + i) % 30);
        EXPECT_TRUE(store.Append(user, {At(i, i)}).ok());
        EXPECT_LE(store.Get(user, 100)->size(), 8u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store.users(), 20u);
}

}  // namespace
}  // namespace beamline::history
