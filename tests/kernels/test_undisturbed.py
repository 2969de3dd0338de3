"""Adding and fusing leave PyTorch, Python and other threads as they were."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
from models import mlp
from torch import Tensor, nn

import spacetime as st
from spacetime.kernels.tracing import tracing, undisturbed, unprinted

ROWS = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))


class Draws(nn.Module):
    """Needs random numbers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.rand(3) * (random.random() + np.random.rand())


def world() -> dict[str, Any]:
    """What is global and could stay changed."""
    loggers = [logging.root, *map(logging.getLogger, [*logging.root.manager.loggerDict])]
    return {
        "loggers": {
            each.name: (each.level, each.disabled, [*each.handlers], [*each.filters])
            for each in loggers
            if each.name.partition(".")[0] in {"root", "torch"}
        },
        "warnings": [*warnings.filters],
        "shown by": warnings.showwarning,
        "streams": (sys.stdout, sys.stderr),
        "environment": dict(os.environ),
        "random": (torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": (torch.get_default_dtype(), torch.get_default_device()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "backends": (torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark),
        "fuser": (torch._C._jit_texpr_fuser_enabled(), torch._C._get_graph_executor_optimize()),
        "module": (nn.Module.__call__, nn.Module.__getattr__, nn.Module.__setattr__),
        "script": (torch.jit.script, torch.jit.ScriptFunction.__call__),
        "export": torch.fx._symbolic_trace._Patcher.patch_method,
    }


def test_nothing_stays_changed() -> None:
    models = [mlp(0), mlp(1), Draws().eval(), nn.Softmax(-1).eval()]
    with st.Session("cpu", lanes=1) as session:  # what is imported for good is imported here
        session.add(mlp(2), example_inputs=(ROWS,))
    before = world()
    with st.Session("cpu", lanes=1) as session:
        for model in models:
            session.add(model, example_inputs=(ROWS,))
        during = world()
    states = [model.state_dict() for model in models[:2]]
    st.fuse(models[0], states, example_inputs=(ROWS,))(ROWS, index=torch.tensor([1, 0]))
    after = world()
    for name, value in before.items():
        if name != "loggers":  # new ones may have come
            assert during[name] == value, name
            assert after[name] == value, name
    assert before["loggers"].items() <= after["loggers"].items()


def test_only_the_tracing_thread_is_unheard(capsys: Any) -> None:
    inside, leave = threading.Event(), threading.Event()

    def trace() -> None:
        with tracing(), unprinted():
            warnings.warn("of the tracing thread", stacklevel=1)
            logging.getLogger("torch.export").critical("of the tracing thread")
            print("def forward(self)", file=sys.stderr)
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=trace)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.start()
        assert inside.wait(60)
        warnings.warn("heard", stacklevel=1)
        print("def forward(heard)", file=sys.stderr)
        leave.set()
        thread.join()
    assert [str(each.message) for each in caught] == ["heard"]
    assert "def forward(heard)" in capsys.readouterr().err


def test_random_numbers_come_as_if_nothing_had_been_drawn() -> None:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    want = torch.rand(3), random.random(), np.random.rand()
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    with undisturbed():
        torch.rand(7), random.random(), np.random.rand(9)
    assert torch.equal(torch.rand(3), want[0])
    assert (random.random(), np.random.rand()) == want[1:]


def test_sessions_add_in_several_threads() -> None:
    failed: list[BaseException] = []

    def add(number: int, session: st.Session) -> None:
        try:
            for width in (8, 9):
                torch_model = nn.Sequential(nn.Linear(6, width + 4 * number), nn.ReLU()).eval()
                tenant = session.add(torch_model, example_inputs=(ROWS[:1],))
                with torch.no_grad():
                    torch.testing.assert_close(tenant(ROWS), torch_model(ROWS))
        except BaseException as error:
            failed.append(error)

    before = world()["module"]
    with st.Session("cpu", lanes=1) as one, st.Session("cpu", lanes=1) as other:
        threads = [
            threading.Thread(target=add, args=(n, session))
            for n, session in enumerate((one, one, other, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        names = [tenant.name for tenant in one.tenants.values()]
    assert len(set(names)) == 4
    assert world()["module"] == before
