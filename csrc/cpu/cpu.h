// cpu.h: the CPU backend. A partition is a set of cores, held by thread affinity.
#pragma once

#include "rt/backend.h"

namespace st::cpu {

class Cpu final : public rt::Backend {
 public:
  Cpu();  // remembers the cores the calling thread may use
  std::string_view kind() const override { return "cores"; }
  std::vector<std::uint32_t> available() const override { return allowed_; }
  std::unique_ptr<rt::Partition> open(const std::vector<std::uint32_t>& units,
                                      int priority) override;

 private:
  std::vector<std::uint32_t> allowed_;
};

}  // namespace st::cpu
