"""Compile a Triton launch for a device that is not there, and read what came out."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from spacetime.kernels.triton.launch import Launch

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True, slots=True)
class Build:
    """One compiled kernel: its text, and what one program of it needs."""

    ptx: str
    cubin: bytes
    shared_bytes: int

    def has(self, pattern: str) -> bool:
        """has(pattern): some instruction of the PTX matches."""
        return re.search(pattern, self.ptx) is not None

    def usage(self) -> dict[str, int]:
        """usage(): REG, STACK, LOCAL, SHARED, ... of the machine code, as cuobjdump reports."""
        said = self._dump("-res-usage")
        return {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", said)}

    def sass(self) -> str:
        return self._dump("-sass")

    def loop(self) -> list[str]:
        """loop(): the instructions of the shortest loop that multiplies."""
        found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", self.sass(), re.MULTILINE)
        code = [(int(at, 16), text) for at, text in found]
        loops = []
        for at, text in code:
            back = re.search(r"BRA\b.*?0x([0-9a-f]+)", text)
            if back and int(back[1], 16) < at:
                loops.append([t for a, t in code if int(back[1], 16) <= a <= at])
        multiplies = [body for body in loops if any(re.search("H?G?MMA|FFMA", t) for t in body)]
        return min(multiplies, key=len)

    def _dump(self, option: str) -> str:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            command = [str(TOOLS / "cuobjdump"), option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compiled(launch: Launch, capability: int) -> Build:
    """compiled(launch, capability): as Triton would on its first launch on such a device."""
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, param in enumerate(launch.kernel.params):
        value = launch.arguments[param.name]
        if isinstance(value, TensorDescriptor):
            kind = POINTERS[value.base.dtype].removeprefix("*")
            signature[param.name] = f"tensordesc<{kind}{value.block_shape}>"
        elif isinstance(value, torch.Tensor):
            signature[param.name] = POINTERS[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif param.is_constexpr or value is None or value == 1:
            signature[param.name] = "constexpr"
            constants[(i,)] = value
        else:
            signature[param.name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    built = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )
    return Build(built.asm["ptx"], built.asm["cubin"], built.metadata.shared)
