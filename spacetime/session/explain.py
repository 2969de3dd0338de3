"""A session in words: what runs where, by which program, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spacetime.devices.device import Device
from spacetime.devices.queues import of_this_process as queues
from spacetime.fusion.choice.by_pointer import in_words
from spacetime.models.backend import Family
from spacetime.policy import Policy
from spacetime.session.apart import lines_of
from spacetime.session.tenant import Tenant

WORK_QUEUES = "work queues of one's own"  # the feature's name


def explain(
    *,
    device: Device,
    name: str,
    policy: Policy,
    lanes: Iterable[tuple[Sequence[int], int]],
    families: Iterable[Family],
    tenants: Sequence[Tenant],
    audit: Sequence[str] = (),
) -> str:
    """Device, partitions (asked, granted), families, buckets and runners, with the reasons."""
    lines = [
        f"device {device.name}: {sum(device.sizes)} {device.measure} ({device.chosen})",
        *mechanism(device),
        f"policy {name}: route {policy.route}, order {policy.order}, batch {policy.batch}",
    ]
    for number, (units, granted) in enumerate(lanes):
        asked = device.size(units)
        same = "granted as asked" if granted == asked else f"GRANTED {granted}"
        what = "cores" if device.kind == "cores" else f"{asked} {device.measure}, units"
        if device.environments:  # what was asked for is no number of SMs
            same = f"its process sees {granted} SMs"
        lines.append(f"lane {number}: partition of {what} {list(units)}, {same}")
    for family in families:
        names = [tenant.name for tenant in tenants if tenant.family is family]
        if names:
            lines += [f"family of {len(names)}: {', '.join(names)}", *lines_of(family)]
            lines += family.lines()
    return "\n".join([*lines, *audit])


def mechanism(device: Device) -> list[str]:
    """How partitions of SMs are bounded, or why they are not; what multiplies by pointer there."""
    if device.native is None:
        return []
    name = device.native.name + (" (simulated in virtual time)" if device.fake else "")
    pointers = [] if device.fake else [f"  {in_words()}"]
    if reason := device.native.why_unbounded:
        return [
            f"  {name}: partitions are streams with priorities, on all SMs: {reason}",
            *pointers,
        ]
    made = f"partitions are green contexts, {device.native.contexts} made"
    own = "" if device.native.features[WORK_QUEUES] else ", each with work queues of its own"
    lines = [f"  {name}: {made}{own}"]
    for units, why in device.native.refused:
        lines.append(f"  the driver makes no partition of units {units}: {why}")
    few = "" if device.fake else queues.ask()
    return [*lines, *([f"  hardware queues: {few}"] if few else []), *pointers]
