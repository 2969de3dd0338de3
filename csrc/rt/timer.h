// timer.h: one alarm that any thread sets and one thread waits for, on a timerfd.
//
// Setting it costs one system call and no thread switch, and the kernel applies no timer slack.
#pragma once

#include "rt/clock.h"

namespace st::rt {

class Timer {
 public:
  Timer();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void set(TimeNs at);  // replaces the previous alarm; an instant in the past rings at once
  void wait();          // until the alarm rings

 private:
  int fd_;
};

}  // namespace st::rt
