#include <pybind11/pybind11.h>

void bind_scheduler(pybind11::module_& m);
void bind_simulator(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_fake(pybind11::module_& m);
void bind_executor(pybind11::module_& m);
void bind_mailbox(pybind11::module_& m);

PYBIND11_MODULE(_native, m) {
  m.doc() = "The C++ core of spacetime: scheduler, simulator and executor.";
  bind_scheduler(m);
  bind_simulator(m);
  bind_cuda(m);
  bind_fake(m);
  bind_executor(m);
  bind_mailbox(m);
}
