#include "capi/error.h"

#include <array>
#include <cstdio>
#include <new>
#include <string_view>

#include "capi/spacetime.h"
#include "cuda/partition.h"
#include "rt/executor.h"

namespace st::capi {
namespace {

thread_local std::array<char, 512> last_error{};

int keep(int status, const char* text) noexcept {
  std::snprintf(last_error.data(), last_error.size(), "%s", text);
  return status;
}

constexpr std::array<const char*, ST_INTERNAL + 1> kTexts = {
    "done",
    "an argument is wrong",
    "the handle names nothing, or no longer",
    "no room for one more request",
    "the session is closed",
    "the tenant was removed",
    "not ended yet",
    "the request has started or ended already",
    "this machine or build lacks it",
    "a call of the CUDA driver failed",
    "out of memory",
    "a fault of the library",
};

}  // namespace

void require(bool holds, const char* text) {
  if (!holds) throw Refused(ST_INVALID, text);
}

int status_of() noexcept {
  try {
    throw;
  } catch (const Refused& error) {
    return keep(error.status, error.what());
  } catch (const rt::Closed& error) {
    return keep(ST_CLOSED, error.what());
  } catch (const cuda::DriverMissing& error) {
    return keep(ST_UNSUPPORTED, error.what());
  } catch (const cuda::PartitionRefused& error) {
    return keep(ST_UNSUPPORTED, error.what());
  } catch (const cuda::DriverError& error) {
    return keep(ST_DRIVER, error.what());
  } catch (const std::bad_alloc&) {
    return keep(ST_NO_MEMORY, "out of memory");
  } catch (const std::logic_error& error) {  // invalid_argument, out_of_range
    return keep(ST_INVALID, error.what());
  } catch (const std::exception& error) {
    return keep(ST_INTERNAL, error.what());
  } catch (...) {
    return keep(ST_INTERNAL, "an unknown exception");
  }
}

}  // namespace st::capi

using st::capi::kTexts;
using st::capi::last_error;

const char* st_error_text(int status) {
  const bool known = status >= 0 && status < static_cast<int>(kTexts.size());
  return known ? kTexts[static_cast<std::size_t>(status)] : "an unknown status";
}

const char* st_last_error(void) { return last_error.data(); }

uint32_t st_api_version(void) { return ST_API_VERSION; }

const char* st_version(void) { return ST_VERSION; }
