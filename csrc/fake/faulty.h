// faulty.h: a wrapper over any driver that counts calls and makes chosen ones fail.
//
// A failed call does not reach the driver: what should have been made is not, and what should have
// been destroyed lives on. With a sticky fault the context is lost: from then on every call that
// touches it returns the code, though what destroys does destroy, until the primary context is
// reset or no longer retained through this wrapper.
//
// Thread safety: any thread may call anything.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda/driver.h"

namespace st::fake {

using namespace cuda;  // the types that the entries name

struct Fault {
  std::optional<Entry> entry{};  // none: any call but those for names and texts of errors
  std::uint64_t nth = 1;         // of those calls, counted from the wrapper's start or clear()
  CUresult code = kInvalidValue;
  bool sticky = false;
};

class FaultyDriver final : public Driver {
 public:
  explicit FaultyDriver(std::shared_ptr<Driver> driver) : driver_(std::move(driver)) {}

  void fail(const Fault& fault);
  // before: called with every call before it is judged, without a lock; it may delay it.
  void before(std::function<void(Entry)> hook);
  void clear();  // faults, counts and a sticky error; the hook stays

  std::uint64_t calls() const;  // of all entries but those for names and texts
  std::uint64_t calls(Entry entry) const;
  std::vector<Entry> failed() const;  // the calls that faults struck; not those of a lost context
  const std::shared_ptr<Driver>& driver() const { return driver_; }

  bool has(Entry entry) const override { return driver_->has(entry); }
#define ST_X(name, version, need, declaration, arguments) CUresult name declaration override;
  ST_CUDA_ENTRIES(ST_X)
#undef ST_X

 private:
  struct Verdict {
    CUresult code;
    bool passes;  // on to the driver
  };
  Verdict judge(Entry entry);
  void settle(Entry entry);  // after a call that the driver carried out
  template <typename Inner>
  CUresult call(Entry entry, Inner inner);

  const std::shared_ptr<Driver> driver_;
  mutable std::mutex mutex_;
  std::vector<Fault> faults_;
  std::shared_ptr<const std::function<void(Entry)>> hook_;
  std::array<std::uint64_t, kEntries> counts_{};
  std::uint64_t total_ = 0;
  std::vector<Entry> failed_;
  CUresult lost_ = kSuccess;
  unsigned references_ = 0;
};

}  // namespace st::fake
