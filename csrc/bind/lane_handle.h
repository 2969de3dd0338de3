// lane_handle.h: what Python holds of a lane: the executor's memory, but not its being open.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bind/waiting.h"

struct LaneHandle {
  std::shared_ptr<st::rt::Executor> executor;
  st::rt::LaneId id;
  st::rt::Executor& operator()() const { return here(executor); }
  st::rt::Lane& lane() const { return here(executor).lane(id); }
};

void bind_lane(pybind11::module_& m);
