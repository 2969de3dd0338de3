"""Exporting one model leaves eager modules in other threads alone."""

from __future__ import annotations

import threading

import torch
from models import convnet, mlp
from torch import fx

from spacetime.fusion import export
from spacetime.fusion.graph.confine import confined


def test_eager_modules_run_elsewhere_while_a_model_is_exported() -> None:
    running, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    neighbour, x = mlp(0), torch.randn(2, 6)

    def run() -> None:
        try:
            while not stop.is_set():
                neighbour(x)
                running.set()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(30)
    for seed in range(3):
        export(convnet(seed), (torch.randn(2, 1, 8, 8),))
        export(neighbour, (x,))
    stop.set()
    thread.join()
    assert not failures


def test_the_tracing_thread_still_traces() -> None:
    with confined():
        graph = fx.symbolic_trace(mlp(0)).graph
    assert [node.op for node in graph.nodes].count("call_module") == 3
