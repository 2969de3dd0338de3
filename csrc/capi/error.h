// error.h: how a call of the C API fails: a status, and one line for st_last_error().
#pragma once

#include <stdexcept>
#include <string>

namespace st::capi {

// Ends the current call with this status and text.
struct Refused : std::runtime_error {
  Refused(int status, const std::string& text) : std::runtime_error(text), status(status) {}
  const int status;
};

void require(bool holds, const char* text);  // else Refused with ST_INVALID

// status_of: what the exception being handled means; keeps its text for st_last_error().
int status_of() noexcept;

// guarded: runs the body of a call; nothing is thrown into C.
template <typename Body>
int guarded(Body body) noexcept {
  try {
    body();
    return 0;
  } catch (...) {
    return status_of();
  }
}

}  // namespace st::capi
