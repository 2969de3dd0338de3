"""A session in words: what runs where, by which program, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spacetime.core import Policy
from spacetime.device import Device
from spacetime.family import Family
from spacetime.tenant import Tenant
from spacetime.units import ms_from_ns

Cores = Sequence[int]


def explain(
    *,
    device: Device,
    name: str,
    policy: Policy,
    lanes: Iterable[tuple[Cores, Cores]],
    families: Iterable[Family],
    tenants: Sequence[Tenant],
) -> str:
    """Device, partitions (asked, granted), families, buckets and runners, with the reasons."""
    lines = [
        f"device {device.name}: {len(device.cores)} cores ({device.chosen})",
        f"policy {name}: route {policy.route}, order {policy.order}, batch {policy.batch}",
    ]
    for number, (asked, granted) in enumerate(lanes):
        same = "granted as asked" if list(asked) == list(granted) else f"GRANTED {list(granted)}"
        lines.append(f"lane {number}: partition of cores {list(asked)}, {same}")
    for family in families:
        names = [tenant.name for tenant in tenants if tenant.family is family]
        if names:
            lines += [f"family of {len(names)}: {', '.join(names)}", *_family_lines(family)]
    return "\n".join(lines)


def _family_lines(family: Family) -> list[str]:
    runner = family.runner
    lines = [f"  runs as: {family.how()}"]
    lines += [f"  because: {reason}" for reason in family.reasons()]
    if family.fused is not None:
        size = family.fused.report.bytes_per_tenant / 2**20
        lines.append(f"  weights: {size:.2f} MiB a tenant, in one stack")
    for bucket in runner.buckets:
        cost = f"  bucket {bucket:>3}: one tenant {ms_from_ns(runner.alone_ns[bucket]):.3f} ms"
        if bucket in runner.fused_ns:
            cost += f", mixed {ms_from_ns(runner.fused_ns[bucket]):.3f} ms"
        lines.append(cost)
    return lines
