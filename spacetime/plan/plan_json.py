"""Plans as JSON, `spacetime.plan/1`: equal after a round trip, and strict on the way in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from spacetime.errors import PlanError
from spacetime.plan.plan import FORMAT, Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.policy import PRESETS
from spacetime.profiles.profile import KINDS

MOST = 2**31  # of any number of units, processes or devices
T = TypeVar("T")
Reader = Callable[[str, Any], Any]


def dumps(plan: Plan) -> str:
    """The plan as indented JSON; fields that are not set are left out."""
    return json.dumps(to_json(plan), indent=2) + "\n"


def loads(text: str, *, where: str = "plan") -> Plan:
    """The plan of a JSON text. Raises PlanError, one line `where: field: what it must be`."""
    try:
        return from_json(json.loads(text, object_pairs_hook=_once))
    except (ValueError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise PlanError(f"{where}: {' '.join(str(error).split()):.400}") from error
        raise PlanError(f"{where}: is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"{twice}: is given twice")
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as `json.dumps` takes it."""
    return {
        "format": FORMAT,
        **_set(planner=plan.planner, device=plan.device),
        **_set(lower_bound_gpus=plan.lower_bound_gpus, headroom=plan.headroom, policy=plan.policy),
        "gpus": [
            {"id": gpu.id, "partitions": [_partition_json(each) for each in gpu.partitions]}
            for gpu in plan.gpus
        ],
        "reasons": [{"tenant": why.tenant, "text": why.text} for why in plan.reasons],
    }


def _partition_json(partition: PartitionPlan) -> dict[str, Any]:
    return {
        **_set(id=partition.id, kind=partition.kind, units=partition.units),
        **_set(start=partition.start, procs=partition.procs, parent=partition.parent),
        **_set(fused=partition.fused or None, memory_mib=partition.memory_mib),
        "tenants": [
            _set(tenant=each.tenant, batch=each.batch, rate_rps=each.rate_rps,
                 latency_ms=each.latency_ms, duty_ms=each.duty_ms)
            for each in partition.tenants
        ],
    }  # fmt: skip


def _set(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


def from_json(data: object) -> Plan:
    """The plan of decoded JSON. Raises PlanError naming the field; unknown fields are refused."""
    if not isinstance(data, dict):
        raise PlanError(f"must be a mapping, got {data!r:.40}")
    if data.get("format") != FORMAT:
        raise PlanError(f"format: must be {FORMAT}, got {data.get('format')!r:.40}")
    return _make(Plan, "", data, {
        "format": _text, "planner": _text, "device": _text, "gpus": _list_of(_gpu),
        "lower_bound_gpus": _whole, "headroom": _number, "policy": _policy,
        "reasons": _list_of(_reason),
    }, required={"planner", "device", "gpus"})  # fmt: skip


def _gpu(place: str, data: Any) -> GpuPlan:
    known: dict[str, Reader] = {"id": _whole, "partitions": _list_of(_partition)}
    return _make(GpuPlan, place, data, known, required=set(known))


def _partition(place: str, data: Any) -> PartitionPlan:
    return _make(PartitionPlan, place, data, {
        "id": _text, "kind": _kind, "units": _from_one, "start": _whole, "procs": _from_one,
        "parent": _text, "fused": _flag, "memory_mib": _number, "tenants": _list_of(_assignment),
    }, required={"id", "kind", "units", "tenants"})  # fmt: skip


def _assignment(place: str, data: Any) -> Assignment:
    return _make(Assignment, place, data, {
        "tenant": _text, "batch": _from_one, "rate_rps": _number, "latency_ms": _number,
        "duty_ms": _number,
    }, required={"tenant", "batch", "rate_rps", "latency_ms"})  # fmt: skip


def _reason(place: str, data: Any) -> Reason:
    known: dict[str, Reader] = {"tenant": _text, "text": _text}
    return _make(Reason, place, data, known, required=set(known))


def _make(
    kind: Callable[..., T], place: str, data: Any, known: dict[str, Reader], *, required: set[str]
) -> T:
    if not isinstance(data, dict):
        raise PlanError(f"{place}: must be fields and values, got {data!r:.40}")
    prefix = f"{place}." if place else ""
    for name in data:
        if name not in known:
            raise PlanError(f"{prefix}{name}: is not a field here; there are {', '.join(known)}")
    for name in sorted(required - set(data)):
        raise PlanError(f"{prefix}{name}: is missing; add it")
    values = {name: known[name](f"{prefix}{name}", value) for name, value in data.items()}
    values.pop("format", None)
    return kind(**values)


def _list_of(read: Callable[[str, Any], T]) -> Callable[[str, Any], tuple[T, ...]]:
    def read_list(place: str, data: Any) -> tuple[T, ...]:
        if not isinstance(data, list):
            raise PlanError(f"{place}: must be a list, got {data!r:.40}")
        return tuple(read(f"{place}[{number}]", item) for number, item in enumerate(data))

    return read_list


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise PlanError(f"{place}: must be a text that is not empty, got {value!r:.40}")
    return value


def _policy(place: str, value: Any) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise PlanError(f"{place}: must be one of {', '.join(PRESETS)}, got {value!r:.40}")
    return value


def _kind(place: str, value: Any) -> str:
    if value not in KINDS:
        raise PlanError(f"{place}: must be one of {', '.join(KINDS)}, got {value!r:.40}")
    return str(value)


def _flag(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise PlanError(f"{place}: must be true or false, got {value!r:.40}")
    return value


def _whole(place: str, value: Any, low: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < MOST:
        raise PlanError(f"{place}: must be a whole number from {low}, got {value!r:.40}")
    return value


def _from_one(place: str, value: Any) -> int:
    return _whole(place, value, 1)


def _number(place: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= sys.float_info.max:  # nor is NaN
        raise PlanError(f"{place}: must be a number from 0, got {value!r:.40}")
    return value  # type: ignore[no-any-return]


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan file. Raises PlanError, one line `file: field: what it must be`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: must be UTF-8 text") from error
    return loads(text, where=str(path))
