// loader.cpp: the loader against libraries that are, or are not, a driver.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fake_rig.h"

namespace {

using namespace st::cuda;
using st::fake::FakeDriver;

struct Folder {
  std::string path;
  Folder() {
    path = (std::filesystem::temp_directory_path() / "spacetime-XXXXXX").string();
    assert(mkdtemp(path.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }

  // A library made of fake_libcuda.c with these flags. Each has a file of its own: a library that
  // is loaded stays so.
  std::string library(const std::string& flags) {
    const std::string file = path + "/" + std::to_string(++made_) + "-libcuda.so.1";
    const std::string command =
        "${CC:-cc} -shared -fPIC " + flags + " tests/native/fake_libcuda.c -o " + file;
    assert(std::system(command.c_str()) == 0);
    return file;
  }

 private:
  int made_ = 0;
};

std::string refusal(const std::string& library) {
  try {
    load(library);
  } catch (const DriverMissing& error) {
    return error.what();
  }
  return "";
}

void expect_text(const std::string& got, const std::string& want) {
  if (got == want) return;
  std::fprintf(stderr, "got:  %s\nwant: %s\n", got.c_str(), want.c_str());
  std::abort();
}

void a_driver_loads(Folder& folder) {
  const std::shared_ptr<Driver> driver = load(folder.library(""));
  for (std::size_t i = 0; i < kEntries; ++i) assert(driver->has(static_cast<Entry>(i)));
  int version = 0;
  OK(driver->cuInit(0));
  EXPECT(kInvalidValue, driver->cuInit(1));
  OK(driver->cuDriverGetVersion(&version));
  assert(version == 13010);
}

void what_others_initialised_is_seen(Folder& folder) {
  const std::string library = folder.library("");
  assert(!initialized(library));  // nobody has loaded it, and asking does not
  const std::shared_ptr<Driver> driver = load(library);
  assert(!initialized(library));
  OK(driver->cuInit(0));
  assert(initialized(library));
  assert(!initialized(folder.path + "/absent.so.1"));
}

void a_driver_without_a_device_says_what_to_do(Folder& folder) {
  const std::shared_ptr<Driver> driver = load(folder.library("-DINIT=100"));
  try {
    initialize(*driver);
    assert(false);
  } catch (const DriverMissing& error) {
    expect_text(error.what(),
                "cuInit failed with 100; let this process see a device (CUDA_VISIBLE_DEVICES, what "
                "its container was given), or use device 'cpu'");
  }
}

void optional_calls_may_be_missing(Folder& folder) {
  const std::shared_ptr<Driver> driver = load(folder.library("-DDRIVER=12040"));
  assert(!load(folder.library("-DDRIVER=13000"))->has(Entry::cuDevSmResourceSplit));
  assert(driver->has(Entry::cuGreenCtxCreate) && !driver->has(Entry::cuGreenCtxStreamCreate));
  CUstream stream = nullptr;
  EXPECT(kNotFound, driver->cuGreenCtxStreamCreate(&stream, nullptr, 1, 0));
  const auto lacks = load(folder.library("-DLACKS='\"cuMemCreate\"'"));
  assert(!lacks->has(Entry::cuMemCreate) && lacks->has(Entry::cuMemMap));
}

void what_is_missing_is_named(Folder& folder) {
  const std::string lacks = folder.library("-DLACKS='\"cuStreamQuery\"'");
  expect_text(refusal(lacks), lacks + ": it has no cuStreamQuery of CUDA 2.0; update the driver");
  const std::string old = folder.library("-DDRIVER=11030");
  expect_text(refusal(old), old + ": it has no cuDeviceGetUuid of CUDA 11.4; update the driver");
  const std::string bare = folder.library("-DBARE");
  expect_text(refusal(bare), bare + ": the driver is older than CUDA 12.0; update the driver");

  const std::string fix = "; install the NVIDIA driver, or use device 'cpu'";
  const std::string absent = folder.path + "/absent.so.1";
  expect_text(refusal(absent),
              absent + ": cannot open shared object file: No such file or directory" + fix);
  const std::string text = folder.path + "/text.so.1";
  std::ofstream(text) << "not a library, and long enough to be looked at as if it were one, ELF\n";
  expect_text(refusal(text), text + ": invalid ELF header" + fix);
}

void errors_say_what_failed() {
  FakeDriver driver;
  CUdevice device = 0;
  try {
    ST_CU(driver, cuDeviceGet, &device, 0);
    assert(false);
  } catch (const DriverError& error) {
    assert(error.call == Entry::cuDeviceGet && error.code == kNotInitialized);
    expect_text(error.what(),
                "cuDeviceGet failed with 3 (CUDA_ERROR_NOT_INITIALIZED: initialization error)");
  }
  try {
    raise(driver, Entry::cuInit, 12345);
  } catch (const DriverError& error) {
    expect_text(error.what(), "cuInit failed with 12345");
  }
  for (std::size_t i = 0; i < kEntries; ++i) {
    const auto entry = static_cast<Entry>(i);
    const std::int32_t number = packed(entry, 915);
    assert(number != 0 && call_of(number) == entry && code_of(number) == 915);
  }
  assert(name_of(Entry::cuGraphLaunch) == "cuGraphLaunch");
}

}  // namespace

int main() {
  Folder folder;
  a_driver_loads(folder);
  what_others_initialised_is_seen(folder);
  a_driver_without_a_device_says_what_to_do(folder);
  optional_calls_may_be_missing(folder);
  what_is_missing_is_named(folder);
  errors_say_what_failed();
  std::puts("loader: ok");
}
