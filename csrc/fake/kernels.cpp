// kernels.cpp: modules, kernels and host functions. A module is a text that says what its kernels
// cost; its first line is kHeader, the others are "NAME flops=F bytes=B [cluster=C] [l2=...]".
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "fake/state.h"

namespace st::fake {
namespace {

constexpr std::string_view kHeader = "spacetime-fake-kernels/1\n";

// False where the line is not as it should be.
bool parse(const std::string& line, std::string& name, Kernel& kernel) {
  std::istringstream words(line);
  if (!(words >> name)) return false;
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) return false;
    const std::string key = word.substr(0, equals);
    char* end = nullptr;
    const double value = std::strtod(word.c_str() + equals + 1, &end);
    if (end == word.c_str() + equals + 1 || *end != '\0' || !(value >= 0)) return false;
    if (key == "flops") {
      kernel.flops = value;
    } else if (key == "bytes") {
      kernel.bytes = value;
    } else if (key == "cluster" && value >= 1) {
      kernel.cluster = static_cast<unsigned>(value);
    } else if (key != "l2") {  // does not change the time
      return false;
    }
  }
  return true;
}

}  // namespace

CUresult FakeDriver::cuModuleLoadData(CUmodule* module, const void* image) {
  return state_->call(Entry::cuModuleLoadData, [&]() -> CUresult {
    State& s = *state_;
    if (module == nullptr || image == nullptr) return kInvalidValue;
    // Not read as text before it is known to be ours: other images may be short and binary.
    const char* text = static_cast<const char*>(image);
    if (std::strncmp(text, kHeader.data(), kHeader.size()) != 0) return kNoBinaryForGpu;
    const auto made = s.handle<CUmodule>();
    std::map<std::string, Kernel> kernels;
    std::istringstream lines(text + kHeader.size());
    for (std::string line; std::getline(lines, line);) {
      std::string name;
      Kernel kernel{.module = made};
      if (line.empty()) continue;
      if (!parse(line, name, kernel)) return kNoBinaryForGpu;
      kernels[name] = kernel;
    }
    const auto loaded = std::make_shared<Module>();
    for (const auto& [name, kernel] : kernels) {
      const auto function = s.handle<CUfunction>();
      s.functions.add(function, std::make_shared<Kernel>(kernel));
      loaded->functions[name] = function;
    }
    s.modules.add(made, loaded);
    *module = made;
    return kSuccess;
  });
}

CUresult FakeDriver::cuModuleUnload(CUmodule module) {
  return state_->call(Entry::cuModuleUnload, [&]() -> CUresult {
    std::shared_ptr<Module> found;
    if (const CUresult code = state_->modules.find(module, found); code != 0) return code;
    for (const auto& [name, function] : found->functions) state_->functions.erase(function);
    state_->modules.erase(module);
    return kSuccess;
  });
}

CUresult FakeDriver::cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return state_->call(Entry::cuModuleGetFunction, [&]() -> CUresult {
    std::shared_ptr<Module> found;
    if (const CUresult code = state_->modules.find(module, found); code != 0) return code;
    if (function == nullptr || name == nullptr) return kInvalidValue;
    const auto named = found->functions.find(std::string_view(name));
    if (named == found->functions.end()) return kNotFound;
    *function = named->second;
    return kSuccess;
  });
}

CUresult FakeDriver::cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                    unsigned grid_z, unsigned block_x, unsigned block_y,
                                    unsigned block_z, unsigned shared_bytes, CUstream stream,
                                    void** parameters, void** extra) {
  return state_->call(Entry::cuLaunchKernel, [&]() -> CUresult {
    constexpr unsigned kThreads = 1024;
    constexpr unsigned kSharedBytes = 227 * 1024;
    State& s = *state_;
    std::shared_ptr<Stream> given;
    std::shared_ptr<Kernel> kernel;
    if (const CUresult code = s.find(stream, given); code != 0) return code;
    if (const CUresult code = s.functions.find(function, kernel); code != 0) return code;
    const std::uint64_t threads = std::uint64_t{block_x} * block_y * block_z;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || threads == 0 || threads > kThreads ||
        shared_bytes > kSharedBytes || (parameters != nullptr && extra != nullptr)) {
      return kInvalidValue;
    }
    if (kernel->cluster > cluster_limit(s.sheet, given->sms)) return kInvalidClusterSize;
    Operation operation{.type = kNodeKernel};
    operation.kernel = {function, grid_x,       grid_y,  grid_z,  block_x, block_y,
                        block_z,  shared_bytes, nullptr, nullptr, nullptr, given->context};
    operation.flops = kernel->flops;
    operation.bytes = kernel->bytes;
    operation.sms = given->sms;
    return s.enqueue(*given, operation);
  });
}

CUresult FakeDriver::cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
  return state_->call(Entry::cuLaunchHostFunc, [&]() -> CUresult {
    std::shared_ptr<Stream> given;
    if (const CUresult code = state_->find(stream, given); code != 0) return code;
    if (function == nullptr) return kInvalidValue;
    Operation operation{.type = kNodeHost};
    operation.function = function;
    operation.data = data;
    return state_->enqueue(*given, operation);
  });
}

}  // namespace st::fake
