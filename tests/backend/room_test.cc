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

TEST(Room, IsExactWhereNothingIsKeptByItsShape) {
  for (const char* backend : {"aten", "cpu"}) EXPECT_EQ(RoomFor(*MakeContext("cpu", "fp32", backend), 513), 513);
}

}  // namespace
}  // namespace beamline::backend
