// SPDX-License-Identifier: Apache-2.0
//
// New models under load, of the real server: versions published into its watched folder, a damaged one among them, and
// a rollback. Every call is answered, and each answer is, as bytes, what the version it names has always answered.
#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "beamline/v1/admin.grpc.pb.h"
#include "deploy/answer_book.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"

namespace beamline::deploy {
namespace {

namespace fs = std::filesystem;

class ReloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int kind = 0; kind < 2; ++kind) {
      ASSERT_TRUE(runtime::testing::WriteTinyBundle(Bundle(kind), {.seed = static_cast<uint64_t>(1 + kind)}).ok());
    }
    fs::create_directories(models_);
    Publish(0);
    server_.Start();
    ASSERT_TRUE(server_.AwaitReady());
  }

  static std::string Bundle(int kind) { return absl::StrCat(::testing::TempDir(), "/reloaded", kind); }

  void Publish(int kind, bool damaged = false) {
    const std::string aside = models_ + "/incoming";
    fs::copy(Bundle(kind), aside, fs::copy_options::recursive);
    if (damaged) {
      std::fstream weights(aside + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
      weights.seekp(-1, std::ios::end);
      weights.put(0x5a);
    }
    fs::rename(aside, absl::StrCat(models_, "/", ++versions_));
  }
  v1::GetStatusResponse Status() const {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
    v1::GetStatusResponse status;
    const auto stub = v1::ModelService::NewStub(Connect(server_.target()));
    EXPECT_TRUE(stub->GetStatus(&context, {}, &status).ok());
    return status;
  }
  bool Await(const std::function<bool()>& reached) const {
    for (int i = 0; i < 600 && !reached(); ++i) absl::SleepFor(absl::Milliseconds(50));
    return reached();
  }
  // Calls without a pause, each compared.
  void AskUntil(const std::atomic<bool>& enough) {
    const auto stub = v1::RecommendService::NewStub(Connect(server_.target()));
    const std::vector<v1::RecommendRequest> requests = FixedRequests();
    for (size_t i = 0; !enough.load(); i = (i + 1) % requests.size()) {
      v1::RecommendResponse response;
      const grpc::Status status = Ask(*stub, requests[i], &response);
      ASSERT_TRUE(status.ok()) << status.error_message() << "\n" << server_.log();
      book_.Check(i, response);
    }
  }

  const std::string models_ = ::testing::TempDir() + "/reloaded_models";
  int versions_ = 0;
  AnswerBook book_;
  RealServer server_{
      LoopbackAddress(1),
      {.engine = absl::StrCat("model_folder: '", models_, "' model_poll_ms: 10 keep_previous_model: false")}};
};

TEST_F(ReloadTest, UnderLoadNoCallFailsAndNoAnswerMixesVersions) {
  std::atomic<bool> enough{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i) callers.emplace_back([&] { AskUntil(enough); });
  std::string serving = Status().model_version();
  const std::string first = serving;
  const auto await_other = [&] {
    ASSERT_TRUE(Await([&] { return Status().model_version() != serving; })) << server_.log();
    serving = Status().model_version();
    const int compared = book_.compared();
    EXPECT_TRUE(Await([&] { return book_.compared() >= compared + 20; }));
  };
  for (int reload = 1; reload <= 10 && !HasFailure(); ++reload) {
    if (reload == 5) {
      Publish(reload % 2, /*damaged=*/true);
      EXPECT_FALSE(server_.process().AwaitLog("model refused").empty());
      EXPECT_EQ(Status().model_version(), serving) << "a broken one changes nothing";
    }
    Publish(reload % 2);
    await_other();
  }
  const auto admin = v1::AdminService::NewStub(Connect(absl::StrCat(LoopbackAddress(1), ":50052")));
  grpc::ClientContext context;
  v1::RollbackResponse rolled_back;
  const grpc::Status status = admin->Rollback(&context, {}, &rolled_back);
  EXPECT_TRUE(status.ok()) << status.error_message();
  await_other();
  EXPECT_NE(serving, first) << "the one before the last";
  enough.store(true);
  for (std::thread& caller : callers) caller.join();
  // The first before anybody asked, those after it with what was asked.
  const std::string log = server_.log();
  EXPECT_THAT(log, ::testing::ContainsRegex("model warmed up: [^\n]*recorded_requests=0"));
  EXPECT_THAT(log, ::testing::ContainsRegex("model warmed up: [^\n]*recorded_requests=[1-9]"));
  EXPECT_EQ(book_.models(), 2u);
  EXPECT_EQ(server_.Stop(SIGTERM), 0);
}

// Of a process, in bytes: the most it ever had.
int64_t MostResident(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes << 10;
  }
  return 0;
}

// A container is sized by the first reload.
TEST(ReloadMemoryTest, ManyReloadsTakeNoMoreThanTheFirst) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer keeps what was freed";
#endif
  std::vector<std::string> bundles;
  for (int kind = 0; kind < 3; ++kind) {
    bundles.push_back(absl::StrCat(::testing::TempDir(), "/large", kind));
    const runtime::testing::TinyBundleOptions options{.seed = static_cast<uint64_t>(1 + kind), .feature_width = 16384};
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundles[kind], options).ok());
  }
  const auto size = static_cast<int64_t>(fs::file_size(bundles[0] + "/model.safetensors"));
  ASSERT_GT(size, 32 << 20) << "too small to be seen beside everything else";
  RealServer server(LoopbackAddress(1), {.engine = absl::StrCat("bundle: '", bundles[0], "'")});
  server.Start();
  ASSERT_TRUE(server.AwaitReady());
  const auto admin = v1::AdminService::NewStub(Connect(absl::StrCat(LoopbackAddress(1), ":50052")));
  int64_t first = 0;
  for (int reload = 1; reload <= 7; ++reload) {
    grpc::ClientContext context;
    v1::ReloadRequest request;
    request.set_bundle(bundles[reload % 3]);
    v1::ReloadResponse response;
    const grpc::Status status = admin->Reload(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    if (reload == 1) first = MostResident(server.pid());
  }
  EXPECT_LT(MostResident(server.pid()), first + size / 2) << "a model has " << size;
  EXPECT_EQ(server.Stop(SIGTERM), 0);
}

}  // namespace
}  // namespace beamline::deploy
