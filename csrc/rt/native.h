// native.h: native functions and the built-in ones, for tests and benchmarks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "rt/launch.h"
#include "rt/signal.h"

namespace st::rt {

// A C function and the context it is called with.
struct Function {
  st_native_function call = nullptr;
  void* context = nullptr;
  explicit operator bool() const { return call != nullptr; }
};

// A function together with what keeps its context alive.
struct Native {
  Function function;
  std::shared_ptr<void> owner;
};

Native noop();
Native spin(TimeNs busy_ns);     // keeps its core busy for that long
Native fail(std::int32_t code);  // returns code

// Holds every launch that enters until it is released: a test's way to keep a lane busy.
class Latch {
 public:
  static Native native(const std::shared_ptr<Latch>& latch);

  void release(std::uint64_t launches);  // lets that many more pass
  void open();                           // lets all pass from now on
  std::uint64_t entered() const { return entered_.load(std::memory_order_acquire); }
  bool wait_entered(std::uint64_t launches, TimeNs until);

 private:
  void hold();

  std::atomic<std::uint64_t> entered_{0};
  std::atomic<std::uint64_t> permits_{0};
  Signal changed_;
};

}  // namespace st::rt
