"""The guest's side of the harness: a guest test is an ordinary test here, and the host reads each report."""

import json
import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Write each report as one line of JSON as soon as it is there: the kernel may not live to the next."""
    config.pluginmanager.register(_Reporter(config, os.path.join(os.environ["GUEST_SHARE"], "reports")))


class _Reporter:
    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._out = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the session is

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._out.write(json.dumps(data) + "\n")

    def pytest_unconfigure(self) -> None:
        self._out.close()
