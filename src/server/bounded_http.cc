// SPDX-License-Identifier: Apache-2.0
#include "server/bounded_http.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

namespace beamline::server {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(5);  // how often one looks whether there is a crowd

// Set on a thread that ends a connection instead of serving it.
thread_local bool refusing = false;

// Threads that take the newest connection first: among more than can be served in time, somebody is. `hurry` is true
// while more wait than threads are free, and at the end, which refuses what waits.
class NewestFirst final : public httplib::TaskQueue {
 public:
  NewestFirst(int threads, size_t max_waiting, std::atomic<bool>* hurry) : max_waiting_(max_waiting), hurry_(*hurry) {
    threads_.reserve(threads);
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
    } catch (const std::system_error&) {  // no more can be had: those that run do
      if (threads_.empty()) throw;
      LogEvent(spdlog::level::warn, "threads for pages that could not be had",
               {{"of", threads}, {"had", threads_.size()}});
    }
  }
  void enqueue(std::function<void()> serve) override {
    std::function<void()> oldest;
    {
      std::lock_guard lock(mu_);
      waiting_.push_back(std::move(serve));
      if (waiting_.size() > max_waiting_) {
        oldest = std::move(waiting_.front());
        waiting_.pop_front();
      }
      Look();
    }
    changed_.notify_one();
    if (oldest) Refuse(oldest);
  }
  void shutdown() override {
    {
      std::lock_guard lock(mu_);
      stopping_ = true;
      Look();
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Loop() {
    std::unique_lock lock(mu_);
    while (true) {
      ++free_;
      changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      --free_;
      if (waiting_.empty()) return;
      const std::function<void()> serve = std::move(waiting_.back());
      waiting_.pop_back();
      const bool ending = stopping_;
      Look();
      lock.unlock();
      if (ending) {
        Refuse(serve);
      } else {
        serve();
      }
      lock.lock();
    }
  }
  void Look() { hurry_ = stopping_ || waiting_.size() > free_; }
  static void Refuse(const std::function<void()>& serve) {
    refusing = true;
    serve();
    refusing = false;
  }

  const size_t max_waiting_;
  std::atomic<bool>& hurry_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;  // guarded by mu_
  size_t free_ = 0;                            // threads that look for work, guarded by mu_
  bool stopping_ = false;                      // guarded by mu_
  std::vector<std::thread> threads_;
};

// One connection: one request, one answer.
class BoundedStream final : public httplib::Stream {
 public:
  BoundedStream(socket_t socket, const BoundedHttpServer::Limits& limits, const std::atomic<bool>& hurry)
      : socket_(socket), limits_(limits), hurry_(hurry), left_(limits.max_request_bytes), begun_(clock_.Now()) {}

  bool is_readable() const override { return Ready(POLLIN, absl::ZeroDuration()); }
  bool is_writable() const override { return Ready(POLLOUT, absl::ZeroDuration()); }
  ssize_t read(char* out, size_t size) override {
    if (at_ == end_ && !Fill()) return -1;
    const size_t count = std::min(size, end_ - at_);
    std::copy_n(buffer_.data() + at_, count, out);
    at_ += count;
    return static_cast<ssize_t>(count);
  }
  // All of it: the library takes less for everything, too.
  ssize_t write(const char* data, size_t size) override {
    if (answered_ == absl::InfiniteFuture()) answered_ = clock_.Now();
    for (size_t done = 0; done < size;) {
      if (TimeIsUp(answered_, limits_.write, limits_.write_in_a_crowd)) return -1;
      if (!Ready(POLLOUT, kLook)) continue;
      const ssize_t count = send(socket_, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0 && errno != EINTR && errno != EAGAIN) return -1;
      done += static_cast<size_t>(std::max<ssize_t>(count, 0));
    }
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }

 private:
  bool Ready(short events, absl::Duration wait) const {
    pollfd ready{socket_, events, 0};
    return poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1))))) > 0;
  }
  bool TimeIsUp(absl::Time begun, absl::Duration limit, absl::Duration in_a_crowd) const {
    const absl::Duration taken = clock_.Now() - begun;
    return taken >= limit || (taken >= in_a_crowd && hurry_);
  }
  // False: the request has used up its size or its time, or there is no more of it.
  bool Fill() {
    const size_t size = std::min(left_, buffer_.size());
    if (size == 0) return false;
    while (true) {
      // What is here when one first looks is read, however long this thread had to wait for the processor.
      const bool first = left_ == limits_.max_request_bytes;
      if (TimeIsUp(begun_, limits_.read, limits_.read_in_a_crowd) && !(first && is_readable())) return false;
      if (!Ready(POLLIN, kLook)) continue;
      const ssize_t count = recv(socket_, buffer_.data(), size, MSG_DONTWAIT);
      if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (count <= 0) return false;
      at_ = 0;
      end_ = static_cast<size_t>(count);
      left_ -= end_;
      return true;
    }
  }

  const Clock& clock_ = ProcessClock();
  const socket_t socket_;
  const BoundedHttpServer::Limits& limits_;
  const std::atomic<bool>& hurry_;
  size_t left_;  // bytes that may still be read
  const absl::Time begun_;
  absl::Time answered_ = absl::InfiniteFuture();  // when the answer began
  std::array<char, 4096> buffer_;
  size_t at_ = 0, end_ = 0;  // what of buffer_ is read and not taken
};

}  // namespace

BoundedHttpServer::BoundedHttpServer(const Limits& limits) : limits_(limits) {
  new_task_queue = [this] { return new NewestFirst(limits_.threads, limits_.max_waiting, &hurry_); };
}

int BoundedHttpServer::Bind(const std::string& address, int port) {
  const int bound = port == 0 ? bind_to_any_port(address) : (bind_to_port(address, port) ? port : -1);
  // The library asks for room for five who wait to be accepted; the probe that is sixth would try again after a second.
  if (bound > 0) ::listen(svr_sock_, SOMAXCONN);
  return bound;
}

bool BoundedHttpServer::process_and_close_socket(socket_t socket) {
  bool served = false;
  if (!refusing) {
    BoundedStream stream(socket, limits_, hurry_);
    bool closed = false;
    served = process_request(stream, /*close_connection=*/true, closed, [](httplib::Request& request) {
      request.ranges.clear();
      request.headers.erase("Content-Encoding");  // inflated, there is no knowing how large it gets
      // RFC 9112, 6.3: a request without either has no body. The library would read until the client closes.
      if (!request.has_header("Content-Length") && !request.has_header("Transfer-Encoding")) {
        request.set_header("Content-Length", "0");
      }
    });
  }
  shutdown(socket, SHUT_RDWR);
  close(socket);
  return served;
}

}  // namespace beamline::server
