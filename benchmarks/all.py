"""Records what a CPU alone measures: python -m spacetime.benchmarks.all [--out DIR] [--quick]

Each topic runs in a process of its own, so none inherits the threads or the memory of another. Run
it on an otherwise idle machine; it takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from spacetime.benchmarks import record

RESULTS = Path(__file__).resolve().parent / "results"
TOPICS = ("flops", "models", "dispatch", "scheduler")


def main() -> int:
    """Runs the topics; returns the exit status: how many of them failed."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.all")
    parser.add_argument("--out", type=Path, default=RESULTS / record.device_folder())
    parser.add_argument("--quick", action="store_true", help="tiny settings: do they run at all?")
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=TOPICS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for topic in asked.topics:
        start = time.monotonic()
        done = subprocess.run(_command(topic, asked.out, quick=asked.quick), check=False)
        failed += done.returncode != 0
        said = "recorded" if done.returncode == 0 else f"FAILED with status {done.returncode}"
        print(f"{topic}: {said} after {time.monotonic() - start:.0f} s", flush=True)
    return failed


def _command(topic: str, out: Path, *, quick: bool) -> list[str]:
    bench = [sys.executable, "-m", "spacetime", "bench", topic, "--out", str(out)]
    return [*bench, *["--quick"] * quick]


if __name__ == "__main__":
    sys.exit(main())
