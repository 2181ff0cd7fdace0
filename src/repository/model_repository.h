// SPDX-License-Identifier: Apache-2.0
//
// The models in memory: loads new versions in the background, verifies and warms them, swaps them in, lets the old one
// drain and keeps it as the last good one to roll back to (TensorFlow Serving's AspiredVersionsManager, for one model).
//
//   identify -> load -> warm up -> serving -> standby -> draining -> unloaded
//                any error: refused, and what was serving goes on serving
//
// New versions come by Reload, or by watching a folder (repository/version_folder.h, version_policy.h). Work is done
// one version at a time on one thread that has the time nobody else wants (SCHED_IDLE): on a machine without any, a
// load takes as long as that lasts. The standby is given up before a load, so at most two models are in memory, and
// those that requests in flight still hold.
//
// Readers call current() per request and hold the handle until the answer: whatever is swapped meanwhile, a request
// sees one version. Thread-safe, but for Step. With `inline_execution` there is no thread: the owner calls Step, which
// makes tests deterministic; with a thread, the clock must move by itself (RealClock).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/snapshot_ptr.h"
#include "repository/loader.h"
#include "repository/version_folder.h"
#include "repository/version_policy.h"
#include "repository/version_status.h"

namespace beamline::repository {

struct RepositoryOptions {
  std::string bundle;                    // served first where no folder is watched, or none of its versions can be
  std::string folder;                    // to watch; empty: none
  std::string manifest = "bundle.json";  // the file that makes a subfolder a version
  std::string
      beside;  // a file that every version is loaded with (a catalogue): where it changes, all have; empty: none
  absl::Duration poll_period = absl::Seconds(5);
  absl::Duration retry_delay = absl::Seconds(30);  // after an error that is not the bundle's
  bool keep_previous = true;                       // false: a rollback loads again
  size_t max_waiting = 8;                          // requests; more are refused
  bool inline_execution = false;
};

class ModelRepository {
 public:
  // Runs once: inside the call where it is refused at once, else on the repository's thread, or in Stop's caller where
  // it was still waiting; under no lock. OK: what is now serving. Else the reason, and what was serving goes on.
  using Done = absl::AnyInvocable<void(absl::StatusOr<VersionStatus>)>;

  // Loads and serves the first version in the caller's thread. From a folder, the newest that can be served; where none
  // can be, the newest one's error.
  static absl::StatusOr<std::unique_ptr<ModelRepository>> Start(RepositoryOptions options,
                                                                std::unique_ptr<Loader> loader,
                                                                std::shared_ptr<const Clock> clock);
  ~ModelRepository();  // Stop
  ModelRepository(const ModelRepository&) = delete;
  ModelRepository& operator=(const ModelRepository&) = delete;

  // What new requests use; never null.
  ModelHandle current() const { return current_.Get(); }

  // Serves the bundle at `path`. Empty: the newest version of the folder, even if it was refused or rolled back before;
  // without a folder, options.bundle again. What is being served already is not loaded again. RESOURCE_EXHAUSTED:
  // too many requests wait. UNAVAILABLE: stopping. ABORTED: the bundle was replaced while it was loaded.
  void Reload(std::string path, Done done);
  // Serves what served before the current version; again, and it goes one further back. FAILED_PRECONDITION: there is
  // none, or its bundle is no longer what it was. ABORTED: another version began to serve while this waited for its
  // turn, and what served before that is what the caller wanted to leave.
  void Rollback(Done done);

  std::vector<VersionStatus> versions() const;  // by id; long gone ones are forgotten
  RepositoryStats stats() const;

  // Begins no further load, fails what waits with UNAVAILABLE and returns when a load under way has ended.
  void Stop();

  // Only with `inline_execution`: one piece of work at the clock's time. False: nothing to do now.
  bool Step() { return Work(); }

 private:
  struct Request {
    bool rollback = false;
    std::string path;
    std::weak_ptr<const Model> leaves;  // of a rollback: what served when it was asked for
    Done done;
  };
  struct Dead {
    int64_t id = 0;
    std::unique_ptr<const Model> model;
  };
  // What others leave for the repository's thread. Shared with the models, whose last user may outlive the repository.
  struct Inbox {
    std::mutex mu;
    std::condition_variable changed;
    std::deque<Request> requests;  // guarded by mu, as all below
    std::vector<Dead> dead;
    bool stopping = false;
  };
  // A version in memory.
  struct Loaded {
    int64_t id = 0;
    std::string path, digest;
    std::vector<std::string> also;  // where else it was, oldest first: one of them may be left when `path` is gone
    ModelHandle model;
  };

  ModelRepository(RepositoryOptions options, std::unique_ptr<Loader> loader, std::shared_ptr<const Clock> clock);
  absl::Status ServeFirst();
  bool Stopping() const;
  bool RequestsWait() const;
  void Submit(Request request);
  void Loop();
  bool Work();

  // Below, on the repository's thread only. repository_folder.cc:
  void Poll();
  // Of versions that came and will never be served: whoever published them finds a line that says why.
  void TellPassedOver(const std::vector<FolderVersion>& available);
  // The same of bundles whose folders have no version's name, once nobody writes there any more: until then it may be
  // renamed yet.
  void TellMisnamed();
  // With stamps, which tell of the file beside them, too, for those above the floor.
  absl::StatusOr<std::vector<FolderVersion>> ListAbove() const;
  // Without stamps; none where no folder is watched.
  absl::StatusOr<std::vector<FolderVersion>> ListNow() const;
  // Serves the newest that can be, notes when to try again those that cannot, and returns the newest one's error. OK:
  // served, or none is due by `now`. One that cannot be does not hold up those below it.
  absl::Status ServeNewest(std::vector<FolderVersion> available, absl::Time now);
  // A hand's choice is above what `there` was when it was taken up: what is published while it loads is newer. Where
  // nobody could say, or nothing was there (a disk that is away), it is above what was seen last.
  void HoldUntilNewer(const absl::StatusOr<std::vector<FolderVersion>>& there);

  // repository_loads.cc:
  absl::StatusOr<VersionStatus> ReloadNow(const std::string& path);
  absl::StatusOr<VersionStatus> RollbackNow(const ModelHandle& leaves);
  absl::StatusOr<VersionStatus> ServeBundle(const std::string& path);
  // What is published under another name has the new one from now on, and the old one beside it.
  void IsAt(const std::string& digest, const std::string& path);
  // Where the bundle of `version` still is.
  absl::StatusOr<std::string> Find(const Loaded& version) const;
  // A loaded and warmed version; its status says why not, where it fails.
  absl::StatusOr<Loaded> Load(const std::string& path, const std::string& digest);
  ModelHandle Share(int64_t id, std::unique_ptr<Model> model);
  // Swaps; the version that served becomes the standby or retires.
  VersionStatus Serve(Loaded next, bool keep_old);
  void Retire(std::optional<Loaded>& version);
  void Bury();

  VersionStatus& StatusOf(int64_t id);  // with mu_ held
  int64_t AddVersion(const std::string& path, const std::string& digest);
  VersionStatus SetState(int64_t id, VersionState state);
  absl::Status Refuse(int64_t id, absl::Status error);

  const RepositoryOptions options_;
  const std::unique_ptr<Loader> loader_;
  const std::shared_ptr<const Clock> clock_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  SnapshotPtr<Model> current_;

  mutable std::mutex mu_;
  std::vector<VersionStatus> versions_;  // guarded by mu_, as the two below
  RepositoryStats stats_;
  int64_t last_id_ = 0;

  // The repository's thread's own (the starter's, before it).
  std::optional<Loaded> serving_, standby_;
  std::vector<Loaded> before_;  // what served before, oldest first; without their models
  int64_t floor_ = 0;
  Refusals refusals_;
  std::set<int64_t> seen_;                       // numbers that were in the folder at the last look
  std::map<std::string, std::string> misnamed_;  // path and stamp, at the last look
  std::set<std::string> misnamed_told_;          // of these, which the log has
  absl::Time next_poll_ = absl::InfiniteFuture();
  std::string poll_error_;  // the last one logged

  std::thread thread_;  // last: uses all of the above
};

}  // namespace beamline::repository
