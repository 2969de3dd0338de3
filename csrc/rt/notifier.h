// notifier.h: one thread that makes the calls nobody else may wait for.
//
// Thread safety: push from any thread, without a lock or an allocation; stop from any thread but
// its own.
//
// Invariants:
// 1. What is pushed before stop() returns is run once, in the order of the pushes.
// 2. A call belongs to the notifier from push() to the start of its run().
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "rt/signal.h"

namespace st::rt {

class Notifier {
 public:
  class Call {
   public:
    virtual void run() noexcept = 0;

   protected:
    ~Call() = default;

   private:
    friend class Notifier;
    Call* next_ = nullptr;
  };

  Notifier();
  ~Notifier() { stop(); }
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  void push(Call& call);
  void stop();        // runs what was pushed, then ends the thread; again: nothing
  bool here() const;  // called from one of its calls

 private:
  void serve();
  bool run_all();

  std::atomic<Call*> last_{nullptr};  // pushed and not taken, newest first
  std::atomic<bool> stopping_{false};
  Signal pushed_;
  std::mutex stop_mutex_;
  std::thread thread_;
};

}  // namespace st::rt
