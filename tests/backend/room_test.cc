// SPDX-License-Identifier: Apache-2.0
#include "backend/room.h"

#include <set>

#include "backend/ops.h"
#include "gtest/gtest.h"

namespace beamline::backend {
namespace {

TEST(Room, FewSizesWithLittleLeftEmpty) {
  std::set<int64_t> sizes;
  int64_t last = 0;
  for (int64_t size = 0; size <= 1024; ++size) {
    const int64_t room = RoomInFewSizes(size);
    ASSERT_GE(room, size);
    ASSERT_GE(room, last) << "more gets no less";
    ASSERT_LE(5 * (room - size), room) << size << ": a fifth is empty";
    ASSERT_EQ(RoomInFewSizes(room), room);
    last = room;
    if (size > 0) sizes.insert(room);
  }
  EXPECT_EQ(sizes.size(), 36u);
  EXPECT_EQ(*sizes.rbegin(), 1024);
  EXPECT_EQ(RoomInFewSizes(9), 10);
  EXPECT_EQ(RoomInFewSizes(513), 640);
}

TEST(Room, PackedRowsAreAQuarterTwoThreeOrAll) {
  std::set<int64_t> sizes;
  for (int64_t tokens = 1; tokens <= 2048; ++tokens) {
    const int64_t rows = RowsInQuarters(tokens, 2048);
    ASSERT_GE(rows, tokens);
    ASSERT_LT(rows - tokens, 512);
    sizes.insert(rows);
  }
  EXPECT_EQ(sizes, (std::set<int64_t>{512, 1024, 1536, 2048}));
  EXPECT_EQ(RowsInQuarters(1, kFewestRowsToPack), kFewestRowsToPack / 4);
  EXPECT_EQ(RowsInQuarters(1, kFewestRowsToPack - 1), kFewestRowsToPack - 1);
  EXPECT_EQ(RowsInQuarters(770, 1027), 770);
}

TEST(Room, TheCpuPacksAllThatItCanAndTheOracleNothing) {
  EXPECT_EQ(RowsToPack(*MakeContext("cpu", "fp32", "cpu"), 7, 12), 7);
  EXPECT_EQ(RowsToPack(*MakeContext("cpu", "fp32", "aten"), 7, 12), 0);
}

TEST(Room, IsExactWhereNothingIsKeptByItsShape) {
  for (const char* backend : {"aten", "cpu"}) EXPECT_EQ(RoomFor(*MakeContext("cpu", "fp32", backend), 513), 513);
}

}  // namespace
}  // namespace beamline::backend
