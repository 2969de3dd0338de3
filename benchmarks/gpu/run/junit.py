"""A plugin of pytest: the JUnit file is rewritten after each test, so that no end loses it.

-p spacetime.benchmarks.gpu.run.junit --device-junit=FILE:GROUP puts this run's tests in the suite
GROUP of FILE; the other suites stay.
"""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from spacetime.benchmarks.driving.replaced import replace_text

OPTION = "--device-junit"
_MOST = 2000  # characters of a failure that are kept


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option."""
    parser.addoption(OPTION, help="FILE:GROUP, the JUnit file and the suite in it")


def pytest_configure(config: pytest.Config) -> None:
    """Begins the suite."""
    if asked := config.getoption(OPTION):
        file, _, group = str(asked).rpartition(":")
        config.pluginmanager.register(Suite(Path(file), group))


class Suite:
    """One suite of the file, rewritten whenever a test starts and ends."""

    def __init__(self, file: Path, group: str) -> None:
        self._file = file
        self._root = _read(file)
        for old in self._root.findall(f"testsuite[@name='{group}']"):
            self._root.remove(old)
        self._suite = ET.SubElement(self._root, "testsuite", name=group)
        self._case: ET.Element | None = None
        self._begin = 0.0
        self._write()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test that ends its process is found as one that was never ended."""
        file, _, name = nodeid.partition("::")
        self._begin = time.monotonic()
        self._case = ET.SubElement(self._suite, "testcase", classname=file, name=name)
        ET.SubElement(self._case, "error", message="it ended its process, or was ended with it")
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what each phase found: the first that did not pass counts."""
        case = self._case
        if case is None or case.find("failure") is not None:
            return
        if report.failed:
            said = _printable(report.longreprtext)
            failure = ET.SubElement(case, "failure", message=said.strip().rpartition("\n")[2])
            failure.text = said
        elif report.skipped:
            ET.SubElement(case, "skipped", message=_printable(str(report.longrepr)))

    def pytest_runtest_logfinish(self) -> None:
        """The test has ended by itself."""
        if self._case is not None:
            self._case.remove(self._case[0])
            self._case.set("time", f"{time.monotonic() - self._begin:.3f}")
            self._write()

    def _write(self) -> None:
        for suite in self._root:
            counts = {"tests": len(suite)}
            for kind in ("failure", "error", "skipped"):
                counts[f"{kind}s".replace("skippeds", "skipped")] = len(suite.findall(f"*/{kind}"))
            suite.attrib.update({name: str(number) for name, number in counts.items()})
        ET.indent(self._root)
        replace_text(self._file, ET.tostring(self._root, encoding="unicode") + "\n")


def _printable(text: str) -> str:
    """Returns the end of a text, without what XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text[-_MOST:])


def _read(file: Path) -> ET.Element:
    try:
        return ET.parse(file).getroot()
    except (OSError, ET.ParseError):
        return ET.Element("testsuites")
