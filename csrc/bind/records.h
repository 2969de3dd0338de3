// records.h: the executor's records as Python sees them, named tuples.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "rt/request.h"
#include "rt/ticket.h"
#include "rt/timeline.h"

void bind_records(pybind11::module_& m);
pybind11::list completion_list(const std::vector<st::rt::Completion>& ended);
pybind11::list happening_list(const std::vector<st::rt::Happening>& happened);
pybind11::dict outcome_counts(const st::rt::Ticket& ticket);
