#include "rt/mailbox.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <system_error>
#include <utility>

namespace st::rt {

struct Mailbox::Page {
  std::atomic<std::uint32_t> asked;  // a futex: the answering side sleeps on it
  std::atomic<std::uint32_t> answered;
  std::atomic<std::uint32_t> lost;
  std::atomic<std::uint32_t> settled;  // a futex: the asker sleeps on it
  alignas(64) std::atomic<std::uint64_t> beats;
};

namespace {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
constexpr int kOrphaned = 3;  // nobody is left to read this status

// Not FUTEX_PRIVATE: the two sides are different processes.
void wake(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void sleep_on(std::atomic<std::uint32_t>& word, std::uint32_t seen, TimeNs until) {
  const timespec t = to_timespec(until);
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, seen, until == kNever ? nullptr : &t, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

template <typename Ready>
bool await(std::atomic<std::uint32_t>& word, Ready ready, TimeNs until) {
  for (;;) {
    const std::uint32_t seen = word.load();
    if (ready()) return true;
    if (now_ns() >= until) return false;
    sleep_on(word, seen, until);
  }
}

}  // namespace

Mailbox::Mailbox(int fd) {
  void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mailbox");
  page_ = static_cast<Page*>(at);
}

Mailbox::~Mailbox() { munmap(page_, kBytes); }

void Mailbox::ask() {
  page_->asked.fetch_add(1);
  wake(page_->asked);
}

bool Mailbox::answered() const { return page_->answered.load() == page_->asked.load(); }

bool Mailbox::lost() const { return page_->lost.load() != 0; }

bool Mailbox::settled(TimeNs until) {
  return await(page_->settled, [this] { return answered() || lost(); }, until);
}

void Mailbox::lose() {
  page_->lost.store(1);
  page_->settled.fetch_add(1);
  wake(page_->settled);
}

bool Mailbox::next(TimeNs until) {
  return await(page_->asked, [this] { return !answered(); }, until);
}

void Mailbox::answer() {
  page_->answered.store(page_->asked.load());
  page_->settled.fetch_add(1);
  wake(page_->settled);
}

void Mailbox::beat() { page_->beats.fetch_add(1, std::memory_order_relaxed); }

std::uint64_t Mailbox::beats() const { return page_->beats.load(std::memory_order_relaxed); }

Heart::Heart(std::shared_ptr<Mailbox> mailbox, TimeNs interval_ns, int parent)
    : mailbox_(std::move(mailbox)) {
  // The thread inherits a mask of everything: signals belong to the process's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, interval_ns, parent] { run(interval_ns, parent); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Heart::~Heart() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Heart::run(TimeNs interval_ns, int parent) {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    mailbox_->beat();
    if (parent != 0 && getppid() != parent) _exit(kOrphaned);
    changed_.wait_for(lock, std::chrono::nanoseconds(interval_ns));
  }
}

}  // namespace st::rt
