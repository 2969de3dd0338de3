#include "rt/timer.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace st::rt {

Timer::Timer() : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "timerfd_create");
}

Timer::~Timer() { close(fd_); }

void Timer::set(TimeNs at) {
  itimerspec alarm{};
  alarm.it_value = to_timespec(std::max<TimeNs>(at, 1));  // zero would switch it off
  timerfd_settime(fd_, TFD_TIMER_ABSTIME, &alarm, nullptr);
}

void Timer::wait() {
  std::uint64_t rings = 0;
  while (read(fd_, &rings, sizeof(rings)) < 0 && errno == EINTR) {
  }
}

}  // namespace st::rt
