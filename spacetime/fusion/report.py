"""What fusing did with each operation that owns parameters, and how many bytes a tenant takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FusionRow:
    """One node of the report. `how` is "fused", "shared" (the same for all tenants), "fell back"
    or "cannot".
    """

    node: str
    operation: str
    how: str
    implementation: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FusionReport:
    """What `fuse` did, in bytes and node by node.

    `rows`: each node that was rewritten, then each constant.
    `bytes_per_tenant`: what one more tenant takes in the stacks.
    `own_bytes_per_tenant`: of a tenant's state dict.
    `template_bytes`: of the constants that all tenants share.
    """

    rows: tuple[FusionRow, ...]
    bytes_per_tenant: int
    own_bytes_per_tenant: int
    template_bytes: int

    @property
    def counts(self) -> dict[str, int]:
        """How many nodes there are of each `how`."""
        return dict(Counter(row.how for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts and lists."""
        return asdict(self)

    def __str__(self) -> str:
        heads = ("node", "operation", "how", "implementation", "reason")
        lines = [
            heads,
            *((r.node, r.operation, r.how, r.implementation, r.reason) for r in self.rows),
        ]
        widths = [max(len(line[c]) for line in lines) for c in range(len(heads))]
        table = [
            "  ".join(v.ljust(w) for v, w in zip(x, widths, strict=True)).rstrip() for x in lines
        ]
        what = ", ".join(f"{count} {how}" for how, count in sorted(self.counts.items()))
        memory = (
            f"{self.bytes_per_tenant:,} bytes a tenant (own weights {self.own_bytes_per_tenant:,}),"
            f" {self.template_bytes:,} bytes shared"
        )
        return "\n".join([*table, f"{what or 'nothing to fuse'}; {memory}"])
