"""The super-kernels and the CUDA C++ kernels on a device: what no interpreter can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from spacetime.kernels import cublas, cuda
from spacetime.kernels.by_pointer import convolve_by_pointer, linear_by_pointer
from spacetime.kernels.cuda import stress
from spacetime.kernels.cuda.latch import Latch
from spacetime.kernels.cuda.probe import clusters, multiprocessors
from spacetime.kernels.triton.configs import Precision, Problem, candidates
from spacetime.kernels.triton.convolution import convolve_triton
from spacetime.kernels.triton.linear import linear_triton

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
needs_cupy = pytest.mark.skipif(not cuda.available, reason="CuPy is not installed")
DEVICE = "cuda"
RUN = torch.tensor(-1)
ROWS = [3, 3, 0, 3, 1]
# Of the largest value: rounding of the type, or of its products.
WAYS: list[tuple[torch.dtype, Precision, float]] = [
    (torch.float32, "ieee", 1e-5),
    (torch.float32, "tf32x3", 1e-5),
    (torch.float32, "tf32", 4e-3),
    (torch.bfloat16, "ieee", 1e-2),
    (torch.float16, "ieee", 2e-3),
]
LAYERS = [(64, 56, 64, 3), (512, 7, 512, 3), (24, 13, 40, 1), (3, 32, 24, 7)]


def rows_of(rows: list[int]) -> Tensor:
    return torch.tensor(rows, device=DEVICE)


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def plain(x: Tensor, w: Tensor, b: Tensor, rows: list[int], *shape: int) -> Tensor:
    """plain: one sample after the other, in float64; shape is padding, groups."""
    padding, groups = shape
    each = [
        F.conv2d(x[s : s + 1].double(), w[r].double(), b[r].double(), 1, padding, 1, groups)
        for s, r in enumerate(rows)
    ]
    return torch.cat(each)


def agree(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert float((got.double() - want).abs().max()) <= tolerance * float(want.abs().max())


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), WAYS)
@pytest.mark.parametrize("points", [1, 7])
def test_linear(dtype: torch.dtype, precision: Precision, tolerance: float, points: int) -> None:
    x, w = random(len(ROWS), points, 200, dtype=dtype), random(4, 300, 200, dtype=dtype)
    b = random(4, 300, dtype=dtype)
    want = torch.stack(
        [F.linear(*(v.double() for v in (x[s], w[r], b[r]))) for s, r in enumerate(ROWS)]
    )
    agree(linear_triton(rows_of(ROWS), RUN, x, w, b, precision=precision), want, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depthwise(dtype: torch.dtype) -> None:
    x = random(len(ROWS), 28, 28, 96, dtype=dtype).permute(0, 3, 1, 2)
    w, b = random(4, 96, 1, 3, 3, dtype=dtype), random(4, 96, dtype=dtype)
    got = convolve_triton(rows_of(ROWS), RUN, x, w, b, [1], [1], [1], 96)
    agree(got, plain(x, w, b, ROWS, 1, 96), 1e-5 if dtype == torch.float32 else 1e-2)


def test_a_captured_launch_serves_whatever_tenants_the_rows_name() -> None:
    x, w = random(3, 16, 64, dtype=torch.float32), random(4, 96, 64, dtype=torch.float32)
    rows = rows_of([0, 1, 2])
    linear_triton(rows, RUN, x, w, None)  # compiled before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = linear_triton(rows, RUN, x, w, None)
    for tenants in ([0, 1, 2], [3, 3, 1]):
        rows.copy_(rows_of(tenants))
        graph.replay()
        agree(y, torch.bmm(x.double(), w[tenants].double().transpose(1, 2)), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_product_by_pointer_follows_the_rows(dtype: torch.dtype) -> None:
    if why_not := cublas.why_missing():
        pytest.skip(why_not)
    x, w = random(3, 16, 64, dtype=dtype), random(4, 96, 64, dtype=dtype)
    rows = rows_of([0, 1, 2])
    linear_by_pointer(rows, RUN, x, w, None)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = linear_by_pointer(rows, RUN, x, w, None)
    for tenants in ([0, 1, 2], [3, 3, 1]):
        rows.copy_(rows_of(tenants))
        graph.replay()
        want = torch.bmm(x.double(), w[tenants].double().transpose(1, 2))
        agree(y, want, 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize(("channels", "pixels", "outputs", "window"), LAYERS)
def test_a_convolution_by_pointer(channels: int, pixels: int, outputs: int, window: int) -> None:
    if why_not := cublas.why_missing():
        pytest.skip(why_not)
    x = random(len(ROWS), pixels, pixels, channels, dtype=torch.float32).permute(0, 3, 1, 2)
    w = random(4, outputs, window, window, channels, dtype=torch.float32).movedim(4, 2)
    b = random(4, outputs, dtype=torch.float32)
    w[2], b[2] = torch.nan, torch.nan  # nobody's row
    pad = [window // 2] * 2
    got = convolve_by_pointer(rows_of(ROWS), RUN, x, w, b, [1, 1], pad, [1, 1])
    agree(got, plain(x, w, b, ROWS, window // 2, 1), 1e-5)


@needs_cupy
def test_a_latch_holds_a_stream_until_it_is_opened() -> None:
    stream, passed = torch.cuda.Stream(), torch.cuda.Event()
    with Latch() as latch:
        latch.hold(stream.cuda_stream)
        passed.record(stream)
        assert not passed.query()
        latch.open()
        passed.synchronize()
        assert not latch.gave_up


@needs_cupy
def test_a_forgotten_latch_gives_up() -> None:
    stream = torch.cuda.Stream()
    with Latch(looks=1000) as latch:
        latch.hold(stream.cuda_stream)
        stream.synchronize()
        assert latch.gave_up


@needs_cupy
@pytest.mark.parametrize("name", ["fma_loop", "mma_loop"])
def test_loops_compute_what_their_twins_do(name: str) -> None:
    out = torch.full((4 * 64,), torch.nan, device=DEVICE)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    kernel = cuda.load("arithmetic", name)
    cuda.enqueue(kernel, stream.cuda_stream, 4, 64, out.data_ptr(), np.int32(5))
    stream.synchronize()
    np.testing.assert_allclose(out.cpu().numpy(), getattr(stress, name)(4, 64, 5), rtol=1e-5)


@needs_cupy
@pytest.mark.parametrize("kind", stress.KINDS)
def test_stressors_run(kind: str) -> None:
    stream = torch.cuda.Stream()
    launch, amount = stress.stressor(kind, 8, stream.cuda_stream)
    launch(2)
    stream.synchronize()
    assert amount > 0


@needs_cupy
def test_blocks_say_where_they_ran() -> None:
    stream, facts = torch.cuda.Stream(), torch.cuda.get_device_properties(0)
    found = multiprocessors(stream.cuda_stream, 4 * facts.multi_processor_count)
    assert set(found) == set(range(facts.multi_processor_count))
    if facts.major >= 9:
        sets = clusters(stream.cuda_stream, 8, 4)
        assert [len(sms) for sms in sets] == [4, 4]
        assert {sm for sms in sets for sm in sms} <= set(found)


@pytest.mark.parametrize("most", [2, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "precision", "tolerance"), WAYS)
@pytest.mark.parametrize(("channels", "pixels", "outputs", "window"), LAYERS)
def test_the_best_candidates_of_a_convolution(  # noqa: PLR0917 - pytest passes them by name
    most: int,
    dtype: torch.dtype,
    precision: Precision,
    tolerance: float,
    channels: int,
    pixels: int,
    outputs: int,
    window: int,
) -> None:
    x = random(len(ROWS), pixels, pixels, channels, dtype=dtype).permute(0, 3, 1, 2)
    w = random(4, outputs, window, window, channels, dtype=dtype).movedim(4, 2)
    b = random(4, outputs, dtype=dtype)
    w[2], b[2] = torch.nan, torch.nan  # nobody's row
    problem = Problem(
        len(ROWS),
        pixels**2,
        outputs,
        channels,
        window**2,
        itemsize=dtype.itemsize,
        precision=precision,
    )
    want = plain(x, w, b, ROWS, window // 2, 1)
    major, minor = torch.cuda.get_device_capability()
    for config in candidates(problem, sms=8, capability=10 * major + minor, most=most):
        got = convolve_triton(
            rows_of(ROWS),
            RUN,
            x,
            w,
            b,
            [1],
            [window // 2],
            precision=precision,
            sms=8,
            config=config,
        )
        agree(got, want, tolerance)
