// waiting.h: how a call that can block gives the interpreter lock away, and lets Ctrl-C through.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "rt/executor.h"

inline constexpr st::rt::TimeNs kSliceNs =
    50'000'000;  // how often the main thread looks for signals as it waits

inline st::rt::TimeNs until(std::optional<st::rt::TimeNs> timeout_ns) {
  return timeout_ns ? st::rt::after(*timeout_ns) : st::rt::kNever;
}

inline void raise_signals() {
  const pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

// patiently: calls wait(until) without the interpreter lock until it returns true or time is up;
// on the main thread in slices, so that Ctrl-C works.
template <typename Wait>
bool patiently(st::rt::TimeNs end, Wait wait) {
  const pybind11::gil_scoped_release release;
  if (gettid() != getpid()) return wait(end);
  for (;;) {
    const st::rt::TimeNs slice = std::min(end, st::rt::after(kSliceNs));
    if (wait(slice)) return true;
    if (st::rt::now_ns() >= end) return false;
    raise_signals();
  }
}

// here: the executor, unless this process was forked from the one that opened it.
inline st::rt::Executor& here(const std::shared_ptr<st::rt::Executor>& executor) {
  if (executor->forked()) {
    throw std::runtime_error(
        "this executor was opened before a fork; open one in the child process");
  }
  return *executor;
}
