// needs.h: what each driver call needs, and what a lost context does to it.
#pragma once

#include "cuda/driver.h"

namespace st::fake {

enum class Needs : std::uint8_t { kNothing, kInit, kContext };

// needs: cuInit before it, or a current context as well.
Needs needs(cuda::Entry entry);
// touches_context: it returns a sticky error once there is one.
bool touches_context(cuda::Entry entry);
// destroys: it ends the life of something; that it does even while it returns a sticky error.
bool destroys(cuda::Entry entry);
// lets_hosts: a host function may make this call. None is allowed to it, but the real driver need
// not refuse, and a garbage collector that runs there destroys things.
bool lets_hosts(cuda::Entry entry);
// unsafe_in_capture: not allowed to a thread that captures, other than in relaxed mode.
bool unsafe_in_capture(cuda::Entry entry);
// lacking: a driver of this version has no such call.
bool lacking(cuda::Entry entry, int driver_version);

// The driver's name and text of a code, or nullptr.
const char* error_name(cuda::CUresult code);
const char* error_text(cuda::CUresult code);

}  // namespace st::fake
