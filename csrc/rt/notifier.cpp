#include "rt/notifier.h"

#include <pthread.h>

#include <utility>

namespace st::rt {
namespace {

thread_local const Notifier* serving = nullptr;

}  // namespace

Notifier::Notifier() : thread_([this] { serve(); }) {}

bool Notifier::here() const { return serving == this; }

void Notifier::push(Call& call) {
  call.next_ = last_.load(std::memory_order_relaxed);
  while (!last_.compare_exchange_weak(call.next_, &call, std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
  pushed_.notify();
}

void Notifier::stop() {
  const std::lock_guard lock(stop_mutex_);
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  pushed_.notify();
  thread_.join();
}

void Notifier::serve() {
  pthread_setname_np(pthread_self(), "st-notifier");
  serving = this;
  const auto news = [this] {
    return last_.load(std::memory_order_acquire) != nullptr ||
           stopping_.load(std::memory_order_acquire);
  };
  do {
    pushed_.await(news, kNever);
  } while (run_all() || !stopping_.load(std::memory_order_acquire));
}

// run_all: false if there was nothing.
bool Notifier::run_all() {
  Call* oldest = nullptr;
  for (Call* call = last_.exchange(nullptr, std::memory_order_acquire); call != nullptr;) {
    Call* next = std::exchange(call->next_, oldest);
    oldest = std::exchange(call, next);
  }
  if (oldest == nullptr) return false;
  while (oldest != nullptr) std::exchange(oldest, oldest->next_)->run();
  return true;
}

}  // namespace st::rt
