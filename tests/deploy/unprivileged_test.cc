// SPDX-License-Identifier: Apache-2.0
//
// The real server as a pod runs it: another user, no capabilities, no new privileges, and a root that nobody can write
// to. It serves, takes a new version from its watched folder, and ends cleanly.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "deploy/real_server.h"
#include "gmock/gmock.h"

namespace beamline::deploy {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// In a mount namespace of its own. The libraries may lie in a home that only its owner enters: there, nothing but them
// is left. Exit code 97: that user cannot reach the program; 98: something could be written.
constexpr char kPod[] = R"sh(
set -e
binary=$1
libraries=$(dirname "$(ldd "$binary" | awk '/libtorch_cpu/ { print $3 }')")
case $libraries in
  "$HOME"/*)
    mount --rbind "$libraries" /mnt
    mount -t tmpfs -o mode=755 tmpfs "$HOME"
    mkdir -p "$libraries"
    mount --rbind /mnt "$libraries" ;;
esac
for folder in / /tmp /var/tmp /dev/shm "$HOME" "$TEST_TMPDIR"; do  # each may be a mount of its own
  mount --rbind "$folder" "$folder"
  mount -o remount,ro,bind "$folder"
done
for folder in / /tmp /var/tmp /dev/shm "$HOME" "$TEST_TMPDIR"; do
  touch "$folder/probe" 2>/dev/null && rm "$folder/probe" && exit 98
done
as_pod="setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
$as_pod test -x "$binary" -a -r "$TEST_TMPDIR" || exit 97
exec $as_pod "$@"
)sh";

const std::vector<std::string> kAsPod = {
    "/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", kPod, "sh"};

class UnprivilegedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
    testing::Process namespaces({"/usr/bin/unshare", "--mount", "mount", "-o", "remount,ro,bind", "/"});
    if (namespaces.Wait() != 0) GTEST_SKIP() << "no mount namespace of its own here: " << namespaces.Log();
    fs::permissions(::testing::TempDir(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
    std::vector<std::string> trial = kAsPod;
    trial.insert(trial.end(), {BEAMLINE_BINARY, "--version"});
    testing::Process version(trial);
    const int code = version.Wait();
    if (code == 97) GTEST_SKIP() << "uid 65532 cannot enter the folders of " << BEAMLINE_BINARY;
    ASSERT_EQ(code, 0) << version.Log();
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(models_ + "/1", {.seed = 1}).ok());
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(::testing::TempDir() + "/incoming", {.seed = 2}).ok());
  }
  // What the kernel says of the process, after "Name:".
  static std::string StatusOf(pid_t pid, const std::string& name) {
    std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
    for (std::string line; std::getline(status, line);) {
      if (line.rfind(name + ":\t", 0) == 0) return line.substr(name.size() + 2);
    }
    return "absent";
  }

  const std::string models_ = ::testing::TempDir() + "/models";
};

TEST_F(UnprivilegedTest, ServesFromARootThatNobodyCanWriteTo) {
  RealServer server(LoopbackAddress(1), {.engine = absl::StrCat("model_folder: '", models_, "' model_poll_ms: 10"),
                                         .lifecycle = "drain_delay_ms: 0 grace_ms: 10000"});
  server.StartBy(kAsPod);
  ASSERT_TRUE(server.AwaitReady());
  EXPECT_EQ(StatusOf(server.pid(), "Uid"), "65532\t65532\t65532\t65532");
  EXPECT_EQ(StatusOf(server.pid(), "Gid"), "65532\t65532\t65532\t65532");
  for (const char* kind : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(StatusOf(server.pid(), kind), "0000000000000000") << kind;
  }
  EXPECT_EQ(StatusOf(server.pid(), "NoNewPrivs"), "1");
  std::ostringstream limits;
  limits << std::ifstream(absl::StrCat("/proc/", server.pid(), "/limits")).rdbuf();
  EXPECT_THAT(limits.str(), ::testing::ContainsRegex("Max core file size +0 +0 "));

  const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
  v1::RecommendResponse first;
  for (const v1::RecommendRequest& request : FixedRequests()) {
    first.Clear();
    const grpc::Status status = Ask(*stub, request, &first);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(first.items_size(), static_cast<int>(request.top_k()));
  }

  fs::rename(::testing::TempDir() + "/incoming", models_ + "/2");
  v1::RecommendResponse later = first;
  for (int i = 0; i < 600 && later.model_version() == first.model_version(); ++i) {
    absl::SleepFor(absl::Milliseconds(50));
    ASSERT_TRUE(Ask(*stub, FixedRequests()[0], &later).ok());
  }
  EXPECT_NE(later.model_version(), first.model_version()) << server.log();
  EXPECT_EQ(server.Stop(SIGTERM), 0) << server.log();
  EXPECT_THAT(server.log(), HasSubstr("server stopped"));
}

}  // namespace
}  // namespace beamline::deploy
