// SPDX-License-Identifier: Apache-2.0
//
// A headless Chromium under remote control: its DevTools protocol over a pair of pipes, JSON messages that end in NUL
// (https://chromedevtools.github.io/devtools-protocol/). One tab. What goes wrong in the page (exceptions, refused
// resources, broken policies) is collected. Not thread-safe.
#pragma once

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace beamline::deploy {

class Browser {
 public:
  using Json = nlohmann::json;

  // `executable`: Debian's chromium.
  explicit Browser(const std::string& executable) {
    const std::string profile = ::testing::TempDir() + "/chromium";
    std::vector<std::string> arguments = {executable,
                                          "--headless=new",
                                          "--no-sandbox",
                                          "--disable-gpu",
                                          "--disable-dev-shm-usage",
                                          "--no-first-run",
                                          "--hide-scrollbars",
                                          "--disable-extensions",
                                          "--disable-background-networking",
                                          "--user-data-dir=" + profile,
                                          "--remote-debugging-pipe",
                                          "about:blank"};
    int to[2], from[2];
    EXPECT_EQ(pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(from, O_CLOEXEC), 0);
    // Where 3 and 4 are taken already, dup2 onto them would lose an end of ours.
    const int child_in = fcntl(to[0], F_DUPFD_CLOEXEC, 10), child_out = fcntl(from[1], F_DUPFD_CLOEXEC, 10);
    in_ = fcntl(to[1], F_DUPFD_CLOEXEC, 10);
    out_ = fcntl(from[0], F_DUPFD_CLOEXEC, 10);
    for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, child_in, 3);
    posix_spawn_file_actions_adddup2(&actions, child_out, 4);
    const std::string log = ::testing::TempDir() + "/chromium.log";
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // it has children: they end with it
    posix_spawnattr_setpgroup(&attributes, 0);
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, executable.c_str(), &actions, &attributes, pointers.data(), environ), 0);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(child_in);
    close(child_out);
    Attach();
  }
  ~Browser() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(in_);
    close(out_);
  }
  Browser(const Browser&) = delete;
  Browser& operator=(const Browser&) = delete;

  // The result of a method; null, and a failed test, where there is none in time.
  Json Call(const std::string& method, Json parameters = Json::object()) {
    Json message = {{"id", ++last_id_}, {"method", method}, {"params", std::move(parameters)}};
    if (!session_.empty()) message["sessionId"] = session_;
    const std::string text = message.dump();
    if (write(in_, text.c_str(), text.size() + 1) != static_cast<ssize_t>(text.size() + 1)) {
      ADD_FAILURE() << "the browser is gone";
      return Json();
    }
    for (const absl::Time end = absl::Now() + absl::Seconds(60); absl::Now() < end;) {
      const Json answer = Read(end);
      if (answer.value("id", 0) != last_id_) continue;
      EXPECT_FALSE(answer.contains("error")) << method << ": " << answer.dump();
      return answer.value("result", Json::object());
    }
    ADD_FAILURE() << method << ": no answer";
    return Json();
  }

  void Open(const std::string& url) {
    Call("Page.navigate", {{"url", url}});
    EXPECT_TRUE(Await("document.readyState === 'complete' && location.href !== 'about:blank'"));
  }
  // The value of an expression (or of what it promises), as JSON.
  Json Evaluate(const std::string& expression) {
    const Json result =
        Call("Runtime.evaluate", {{"expression", expression}, {"returnByValue", true}, {"awaitPromise", true}});
    EXPECT_FALSE(result.contains("exceptionDetails")) << expression << ": " << result.dump();
    return result.contains("result") ? result["result"].value("value", Json()) : Json();
  }
  // Until the expression holds; false when it does not in time.
  bool Await(const std::string& expression, absl::Duration timeout = absl::Seconds(20)) {
    for (const absl::Time end = absl::Now() + timeout; absl::Now() < end; absl::SleepFor(absl::Milliseconds(30))) {
      if (Evaluate(expression) == true) return true;
    }
    return false;
  }
  // As a person would: a click on the middle of an element, text into the one that has the focus, a key.
  void Click(const std::string& selector) {
    const Json at =
        Evaluate(absl::StrCat("(() => { const e = document.querySelector('", selector,
                              "'); e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
                              " return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"));
    for (const char* type : {"mousePressed", "mouseReleased"}) {
      Call("Input.dispatchMouseEvent",
           {{"type", type}, {"x", at["x"]}, {"y", at["y"]}, {"button", "left"}, {"clickCount", 1}});
    }
  }
  void Type(const std::string& text) { Call("Input.insertText", {{"text", text}}); }
  void Press(const std::string& key) {
    for (const char* type : {"keyDown", "keyUp"}) Call("Input.dispatchKeyEvent", {{"type", type}, {"key", key}});
  }
  void Screenshot(const std::string& file) {
    const Json shot = Call("Page.captureScreenshot", {{"captureBeyondViewport", true}});
    std::string bytes;
    EXPECT_TRUE(absl::Base64Unescape(shot.value("data", ""), &bytes));
    std::ofstream(file, std::ios::binary) << bytes;
  }
  // What went wrong in the page so far.
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  void Attach() {
    const Json targets = Call("Target.getTargets")["targetInfos"];
    for (const Json& target : targets) {
      if (target.value("type", "") != "page") continue;
      const Json attached = Call("Target.attachToTarget", {{"targetId", target["targetId"]}, {"flatten", true}});
      session_ = attached.value("sessionId", "");
      break;
    }
    ASSERT_NE(session_, "");
    for (const char* domain : {"Page.enable", "Runtime.enable", "Log.enable", "Network.enable"}) Call(domain);
  }

  // The next message, an event or an answer; events of trouble are kept.
  Json Read(absl::Time end) {
    size_t at;
    while ((at = buffer_.find('\0')) == std::string::npos) {
      pollfd ready{out_, POLLIN, 0};
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(end - absl::Now()))) <= 0) return Json::object();
      char bytes[65536];
      const ssize_t count = read(out_, bytes, sizeof(bytes));
      if (count <= 0) return Json::object();
      buffer_.append(bytes, static_cast<size_t>(count));
    }
    const Json message = Json::parse(buffer_.substr(0, at), nullptr, false);
    buffer_.erase(0, at + 1);
    const std::string method = message.value("method", "");
    if (method == "Runtime.exceptionThrown" ||
        (method == "Log.entryAdded" && message["params"]["entry"].value("level", "") == "error") ||
        (method == "Runtime.consoleAPICalled" && message["params"].value("type", "") == "error")) {
      problems_.push_back(message["params"].dump());
    }
    if (method == "Network.requestWillBeSent") requests_.push_back(message["params"]["request"].value("url", ""));
    return message;
  }

 public:
  // Addresses the page asked for so far.
  const std::vector<std::string>& requests() const { return requests_; }

 private:
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1;
  int last_id_ = 0;
  std::string session_, buffer_;
  std::vector<std::string> problems_, requests_;
};

}  // namespace beamline::deploy
