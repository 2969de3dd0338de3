"""Plans as JSON, `spacetime.plan/1`: equal after a round trip, and strict on the way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spacetime.errors import PlanError
from spacetime.plan.plan import FORMAT, PartitionPlan, Plan
from spacetime.workload.fields import converted
from spacetime.workload.workload import shown


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
        raise PlanError(f"must be fields and values, got {shown(data)}")
    if data.get("format") != FORMAT:
        raise PlanError(f"format: must be {FORMAT}, got {shown(data.get('format'))}")
    fields = {name: value for name, value in data.items() if name != "format"}
    return converted(fields, Plan, _refusal, whole="plan", nulls=False)


def _refusal(field: str, problem: str) -> PlanError:
    return PlanError(f"{field}: {problem}")


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan file. Raises PlanError, one line `file: field: what it must be`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: must be UTF-8 text") from error
    return loads(text, where=str(path))
