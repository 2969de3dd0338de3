"""MLPerf's LoadGen asks four tenants of one session: python -m under_loadgen.ask OUT [--qps 200]

Scenario Server: queries arrive at random at the given rate, and 99 % of them have to be answered
within the objective. LoadGen says VALID or INVALID (in a short run always INVALID: it asks for some
hundreds of queries); its logs are written to the folder OUT. Needs mlcommons-loadgen.
"""

import argparse
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import mlperf_loadgen as lg
import torch
from four_models import EXAMPLE, TENANTS, model

import spacetime as st

MOST = 1 << 20  # waiting requests: LoadGen knows late answers, not refusals
SAMPLES = 64  # of the data set; sample n is a picture for tenant n % TENANTS


def settings(qps: float, slo_ms: float, seconds: float) -> lg.TestSettings:
    """How LoadGen asks, and what it calls valid."""
    made = lg.TestSettings()
    made.scenario = lg.TestScenario.Server
    made.mode = lg.TestMode.PerformanceOnly
    made.server_target_qps = qps
    made.server_target_latency_ns = round(slo_ms * 1e6)
    made.min_duration_ms = round(1000 * seconds)
    return made


def answered(query: int, answer: Future[torch.Tensor]) -> None:
    """Tells LoadGen; the tensor's memory is read before this returns."""
    scores = answer.result()
    size = scores.numel() * scores.element_size()
    lg.QuerySamplesComplete([lg.QuerySampleResponse(query, scores.data_ptr(), size)])


def ask(session: st.Session, chosen: lg.TestSettings, out: Path) -> str:
    """One run; LoadGen's own summary of it."""
    tenants = [
        session.add(model(n), example_inputs=(EXAMPLE,), queue_limit=MOST) for n in range(TENANTS)
    ]
    pictures = torch.rand(SAMPLES, *EXAMPLE.shape)

    def issue(queries: list[lg.QuerySample]) -> None:
        for query in queries:
            answer = tenants[query.index % TENANTS].submit(pictures[query.index])
            answer.add_done_callback(partial(answered, query.id))

    logs = lg.LogSettings()
    logs.log_output.outdir = str(out)
    system = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(system, library, chosen, logs)
    lg.DestroyQSL(library)
    lg.DestroySUT(system)
    return (out / "mlperf_log_summary.txt").read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m under_loadgen.ask")
    parser.add_argument("out", type=Path, help="folder for LoadGen's logs")
    parser.add_argument("--qps", type=float, default=200.0)
    parser.add_argument("--slo-ms", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with st.Session("cpu") as session:
        print(ask(session, settings(asked.qps, asked.slo_ms, asked.seconds), asked.out))
