"""The Triton kernels without a device: what they compute, and what they compile to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: its kernels are not checked")

from triton_builds import Build, compiled

from spacetime.kernels.triton.boxes import Box, box_candidates, box_launch, boxed
from spacetime.kernels.triton.configs import (
    BARRIERS,
    REGISTERS,
    SHARED_BYTES,
    Config,
    Precision,
    Problem,
    candidates,
    depthwise_candidates,
)
from spacetime.kernels.triton.convolution import convolution_launches
from spacetime.kernels.triton.launch import ConvolutionGeometry, Epilogue, Launch
from spacetime.kernels.triton.linear import linear_launches

ROOT = Path(__file__).parents[2]
ARCHITECTURES = [80, 90, 100]
TENSOR_CORES = {80: r"mma\.sync", 90: r"wgmma\.mma_async", 100: r"tcgen05\.mma|mma\.sync"}
# ptxas may put a few values outside the loop on the stack where that lets one more program run on
# an SM; on sm_90, the one that matters, Triton 3.6 leaves it no reason, 3.8 hardly any.
STACK_BYTES = {80: 64, 90: 32, 100: 64}
WAYS: list[tuple[torch.dtype, Precision]] = [
    (torch.float32, "ieee"),
    (torch.float32, "tf32x3"),
    (torch.float32, "tf32"),
    (torch.bfloat16, "tf32x3"),
    (torch.float16, "tf32x3"),
]


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def convolution(
    slots: int, channels: int, pixels: int, outputs: int, window: int, *, dtype: torch.dtype,
    stride: int = 1, groups: int = 1, last: bool = True, **options: Any,
) -> list[Launch]:  # fmt: skip
    """convolution: launches for ResNet-like layers, 'same' padding, weights channels last."""
    x = empty(slots, pixels, pixels, channels, dtype=dtype).permute(0, 3, 1, 2)
    if not last:
        x = empty(slots, channels, pixels, pixels, dtype=dtype)
    w = empty(slots, outputs, window, window, channels // groups, dtype=dtype).movedim(4, 2)
    b, rows = empty(slots, outputs, dtype=dtype), empty(slots, dtype=torch.int64)
    pad = window // 2
    geometry = ConvolutionGeometry((stride, stride), (pad, pad), (1, 1), groups)
    return convolution_launches(rows, x, w, b, geometry, activation="relu", sms=132, **options)[1]


def linear(
    slots: int, points: int, inputs: int, outputs: int, dtype: torch.dtype, **options: Any
) -> list[Launch]:
    x = empty(slots, points, inputs, dtype=dtype)
    w, b = empty(slots, outputs, inputs, dtype=dtype), empty(slots, outputs, dtype=dtype)
    rows = empty(slots, dtype=torch.int64)
    return linear_launches(rows, x, w, b, activation="gelu", sms=132, **options)[1]


def sound(build: Build, capability: int) -> None:
    """sound: within the device's shared memory, and nothing of weight spilled to local memory."""
    used = build.usage()
    assert build.shared_bytes <= SHARED_BYTES[capability]
    assert used["STACK"] <= STACK_BYTES[capability]
    assert used["LOCAL"] == 0


def test_in_the_interpreter() -> None:
    """A process of its own: Triton reads the variable once, when it is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/rigs/triton_cases.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "precision"), WAYS)
def test_products_compile_to_tensor_cores_or_exact_sums(
    capability: int, dtype: torch.dtype, precision: Precision
) -> None:
    config = Config(64, 64, 16, 4, 2) if precision == "ieee" else Config(64, 64, 32, 4, 3)
    for launches in (
        convolution(16, 64, 56, 64, 3, dtype=dtype, precision=precision, config=config),
        linear(16, 128, 768, 768, dtype, precision=precision, config=config),
    ):
        build = compiled(launches[0], capability)
        sound(build, capability)
        exact = dtype == torch.float32 and precision == "ieee"
        found = TENSOR_CORES[capability]
        assert bool(build.has(found)) != exact
        assert build.has(r"fma\.rn\.f32") or not exact
        assert build.has(r"cp\.async\.cg\.shared\.global.*0x10")  # operands, 16 bytes at a time
        assert build.has(r"st\.global\.v4")


@pytest.mark.parametrize(
    ("launches", "what"),
    [
        (convolution(4, 512, 7, 512, 3, dtype=torch.float32), "split along K"),
        (convolution(4, 3, 224, 64, 7, dtype=torch.bfloat16, stride=2, last=False), "few channels"),
        (convolution(4, 32, 56, 32, 3, dtype=torch.bfloat16, groups=32), "depthwise"),
        (convolution(4, 128, 28, 128, 3, dtype=torch.bfloat16, groups=32), "groups"),
        (linear(64, 1, 768, 1000, torch.float16), "one row a slot"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_best_guess_compiles(launches: list[Launch], what: str) -> None:
    assert len(launches) == (2 if what == "split along K" else 1)
    for launch in launches:
        sound(compiled(launch, 90), 90)


@pytest.mark.parametrize(
    ("precision", "config", "products", "resident"),
    [
        ("tf32x3", Config(128, 64, 32, 8, 3), 12, 1),
        ("tf32x3", Config(64, 128, 32, 4, 3), 12, 2),
        ("ieee", Config(64, 128, 16, 4, 2), 0, 2),
    ],
    ids=str,
)
def test_what_the_ranking_believes_of_a_configuration_is_what_is_compiled(
    precision: Precision, config: Config, products: int, resident: int
) -> None:
    dtype = torch.float32
    build = compiled(convolution(16, 128, 56, 128, 3, dtype=dtype, precision=precision,
                                 config=config)[0], 90)  # fmt: skip
    sound(build, 90)
    assert build.usage()["STACK"] == 0
    loop = build.loop()
    assert sum("HGMMA" in text for text in loop) == products
    assert sum(text.startswith("BAR.") for text in loop) == BARRIERS
    problem = Problem(16, 3136, 128, 128, 9, precision=precision)
    assert len(loop) == pytest.approx(config.instructions(problem), rel=0.35)
    registers = -(-build.usage()["REG"] // 8) * 8
    assert REGISTERS // (registers * 32 * config.warps) >= resident
    assert replace(config, programs_per_sm=4).resident(problem, SHARED_BYTES[90]) == resident


def boxed_layer(side: int, channels: int, outputs: int, box: Box, **shape: Any) -> Launch:
    """boxed_layer: a 3x3 convolution in bfloat16, everything channels last."""
    half = torch.bfloat16
    x = empty(8, side, side, channels, dtype=half).permute(0, 3, 1, 2)
    w = empty(4, outputs, 3, 3, channels, dtype=half).movedim(4, 2)
    b, rows = empty(4, outputs, dtype=half), empty(4, dtype=torch.int64)
    geometry = ConvolutionGeometry(**{"padding": (1, 1), **shape})
    return box_launch(rows, x, w, geometry, Epilogue(b, None, "relu"), box=box, sms=132)[1]


def test_boxes_are_brought_by_the_accelerator_and_multiplied_from_shared_memory() -> None:
    (box, _) = box_candidates((14, 14), 256, 256)
    build = compiled(boxed_layer(14, 256, 256, box), 90)
    sound(build, 90)
    assert build.usage()["STACK"] == 0
    assert build.shared_bytes <= box.shared_bytes
    loop = build.loop()
    assert sum("UTMALDG" in text for text in loop) == 2  # one box of pixels, one of weights
    assert sum("HGMMA" in text for text in loop) == 4  # 64 channels, 16 at a time
    assert not any(text.startswith(("LDG", "STS")) for text in loop)


def test_boxes_cover_what_they_waste_least_of() -> None:
    for side, covered in ((56, 56 * 64), (28, 28 * 32), (14, 16 * 16), (7, 16 * 8)):
        boxes = box_candidates((side, side), 128, 128)
        first = boxes[0]
        assert -(-side // first.high) * -(-side // first.wide) * 128 == covered
        assert [box.high * box.wide for box in boxes] == [128, 64]
        assert all(box.shared_bytes <= SHARED_BYTES[90] for box in boxes)
        assert [boxed(box.name) for box in boxes] == [*boxes]
    assert box_candidates((14, 14), 24, 64) == ()
    assert box_candidates((14, 14), 64, 64, capability=80) == ()
    with pytest.raises(ValueError, match="is not like"):
        boxed("64x64x32 w4 s3")


def test_what_boxes_do_not_take_is_named() -> None:
    box, half = Box(8, 8, 64, 64, 4, 4), torch.bfloat16
    with pytest.raises(ValueError, match="stride 1"):
        boxed_layer(14, 64, 64, box, stride=(2, 2))
    with pytest.raises(ValueError, match="multiple of 64 channels"):
        boxed_layer(14, 32, 64, box)
    rows, w = empty(4, dtype=torch.int64), empty(4, 64, 3, 3, 64, dtype=half).movedim(4, 2)
    x, plain = empty(4, 64, 8, 8, dtype=half), ConvolutionGeometry()
    with pytest.raises(ValueError, match="channels last"):
        box_launch(rows, x, w, plain, Epilogue(), box=box, sms=1)
    x = empty(4, 8, 8, 64, dtype=torch.float32).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match="half precision"):
        box_launch(rows, x, w, ConvolutionGeometry(), Epilogue(), box=box, sms=1)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "precision"), WAYS[:-1])  # float16 compiles as bfloat16 does
@pytest.mark.parametrize("layer", [(64, 56), (256, 14), (512, 7)])
def test_every_candidate_compiles(
    capability: int, dtype: torch.dtype, precision: Precision, layer: tuple[int, int]
) -> None:
    channels, pixels = layer
    size = dtype.itemsize
    problems = [
        Problem(slots, pixels**2, channels, channels, 9, itemsize=size, precision=precision)
        for slots in (2, 16, 120)
    ]
    found = {c for p in problems for c in candidates(p, sms=132, capability=capability)}
    for config in {replace(c, programs_per_sm=1) for c in found}:  # which is not compiled in
        for launch in convolution(
            16, channels, pixels, channels, 3, dtype=dtype, precision=precision, config=config
        ):
            build = compiled(launch, capability)
            sound(build, capability)
            assert build.shared_bytes <= config.shared_bytes(size), config


def test_candidates_fit_the_device_and_are_few() -> None:
    for capability, limit in SHARED_BYTES.items():
        for points, outputs, channels in ((1, 1000, 2048), (49, 512, 512), (3136, 64, 64)):
            problem = Problem(16, points, outputs, channels, 9)
            found = candidates(problem, sms=132, capability=capability)
            assert 1 <= len(found) <= 6
            assert len(set(found)) == len(found)
            assert all(c.shared_bytes(4) <= limit for c in found)


def test_the_tall_tile_goes_first_where_it_fills_the_sms() -> None:
    for slots, fills in ((2, False), (64, True)):
        found = candidates(Problem(slots, 256, 128, 1152), sms=132)
        assert ((found[0].block_m, found[0].block_n, found[0].warps) == (128, 64, 8)) is fills


def test_no_two_warpgroups_split_the_same_rows() -> None:
    """With tf32x3 they hand each other the parts: 18 barriers a step in place of 2."""
    for points in (16, 64, 256, 3136):
        for config in candidates(Problem(16, points, 128, 128, 9), sms=132, most=99):
            assert config.warps == 4 or config.block_m == 128


@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "tf32"])
def test_as_many_programs_are_asked_for_as_an_sm_holds(precision: Precision) -> None:
    for slots, points, outputs in ((2, 49, 512), (16, 3136, 64), (120, 256, 128)):
        problem = Problem(slots, points, outputs, 512, precision=precision)
        for config in candidates(problem, sms=132, most=99):
            assert config.resident(problem, SHARED_BYTES[90]) == config.programs_per_sm
            assert config.registers(problem) <= 255


def test_exact_products_are_not_left_alone_on_an_sm() -> None:
    first = candidates(Problem(64, 256, 128, 1152, precision="ieee"), sms=132)[0]
    assert first.programs_per_sm >= 2


def test_split_only_where_sms_would_idle() -> None:
    few, many = (Problem(slots, 49, 512, 512, 9) for slots in (2, 120))
    assert candidates(few, sms=132)[0].splits > 1
    assert all(c.splits == 1 for c in candidates(many, sms=132))


def test_depthwise_candidates_follow_the_shape() -> None:
    assert depthwise_candidates(3136, 96)[0] == Config(32, 64, programs_per_sm=4)
    assert depthwise_candidates(4, 10)[0].block_n == 16


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"activation": "tanh"}, "activation: 'tanh'"),
        ({"precision": "fp64"}, "precision: 'fp64'"),
        ({"sms": None}, "sms: give"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], named: str) -> None:
    rows = torch.zeros(2, dtype=torch.int64)
    options: dict[str, Any] = {"sms": 1, **wrong}
    with pytest.raises(ValueError, match=named):
        linear_launches(rows, torch.ones(2, 3), torch.ones(1, 4, 3), None, **options)


def test_operands_that_do_not_fit_are_named() -> None:
    rows, x, w = (
        torch.zeros(2, dtype=torch.int64),
        torch.ones(2, 4, 5, 5),
        torch.ones(1, 4, 4, 3, 3),
    )
    wide = ConvolutionGeometry(dilation=(3, 3))
    with pytest.raises(ValueError, match="fewer than the window"):
        convolution_launches(rows, x, w, None, wide, sms=1)
    with pytest.raises(ValueError, match="dtype"):
        convolution_launches(rows, x.double(), w.double(), None, ConvolutionGeometry(), sms=1)
    with pytest.raises(ValueError, match="in 2 groups"):
        convolution_launches(rows, x, w, None, ConvolutionGeometry(groups=2), sms=1)
    with pytest.raises(ValueError, match="rows"):
        convolution_launches(rows.int(), x, w, None, ConvolutionGeometry(), sms=1)
    with pytest.raises(ValueError, match="no multiple"):
        convolution_launches(rows, x[:1], w, None, ConvolutionGeometry(), sms=1)
    with pytest.raises(ValueError, match="does not fit 2 slots"):
        linear_launches(rows, torch.ones(2, 3), torch.ones(1, 4, 5), None, sms=1)
