// mailbox.h: one launch at a time between two processes, over a page of memory they share.
//
// A lane holds one launch at a time (lane.h), so the ring to a process that serves one has one
// place each way. What is asked and answered lies in other memory; here the two sides wake each
// other, and the asker learns that the other side is gone.
//
// Thread safety: ask and answered from one thread of the asking process at a time; next and answer
// from one thread of the answering one; lose and beats from any thread.
//
// Invariants:
// 1. asked - answered is 0 (idle) or 1 (the launch belongs to the answering side).
// 2. What was written before ask() is seen after next(), and before answer() after answered().
// 3. After lose() no asker sleeps, for ever.
// 4. beats grows as long as the answering process is scheduled, whatever its models do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "rt/clock.h"

namespace st::rt {

class Mailbox {
 public:
  static constexpr std::size_t kBytes = 4096;

  // Maps the first page of `fd`, which must hold kBytes and begin as zeros. Throws system_error.
  explicit Mailbox(int fd);
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void ask();
  // settled: until the launch is answered or the other side lost (true), or `until` (false).
  bool settled(TimeNs until);
  bool answered() const;
  void lose();
  bool lost() const;

  // next: until a launch is asked for (true), or `until` has passed (false).
  bool next(TimeNs until);
  void answer();

  void beat();
  std::uint64_t beats() const;

 private:
  struct Page;
  Page* page_;
};

// A thread that beats for its process, and ends that process when its parent has gone.
class Heart {
 public:
  Heart(std::shared_ptr<Mailbox> mailbox, TimeNs interval_ns, int parent);
  ~Heart();

 private:
  void run(TimeNs interval_ns, int parent);
  std::shared_ptr<Mailbox> mailbox_;
  std::mutex mutex_;  // guards stop_
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace st::rt
