"""Our server of the compared model, on one lane, as the others have one instance, until SIGTERM.

python -m spacetime.benchmarks.serving.ours  prints the HTTP port once it answers.
"""

from __future__ import annotations

from pathlib import Path

from spacetime.benchmarks.serving.toy import LARGEST_BATCH, WIDTH, toy
from spacetime.server.repository import Repository
from spacetime.server.serve import Options, Server, serve
from spacetime.session.session import Session
from spacetime.workload.workload import InputSpec, Tenant, Workload


def main() -> None:
    """Serves."""
    spec = InputSpec((1, WIDTH), "FP32")
    model = f"{toy.__module__}:{toy.__name__}"
    tenant = Tenant(name="toy", model=model, slo_ms=1000, rate_rps=1000, example_inputs=(spec,))
    with Session("cpu", lanes=1, max_batch=LARGEST_BATCH) as session:
        repository = Repository(session, Workload((tenant,)), Path())
        repository.load_all()
        server = Server(repository, Options(http_port=0, grpc_port=0, metrics_port=0))
        serve(server, lambda: print(server.http_port, flush=True))


if __name__ == "__main__":
    main()
