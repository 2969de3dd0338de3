#include <pybind11/pybind11.h>

void bind_sched(pybind11::module_& m);
void bind_sim(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_fake(pybind11::module_& m);
void bind_rt(pybind11::module_& m);
void bind_mailbox(pybind11::module_& m);

PYBIND11_MODULE(_native, m) {
  m.doc() = "The C++ core of spacetime: scheduler, simulator and executor.";
  bind_sched(m);
  bind_sim(m);
  bind_cuda(m);
  bind_fake(m);
  bind_rt(m);
  bind_mailbox(m);
}
