"""What all tests share: privileged tests only where they can run, and no silent skip where they can."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import resource
import sys
from collections.abc import Generator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from l7proxy import compiled

# How long an example takes says more of what else the machine does than of what is tried.
settings.register_profile("l7proxy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("l7proxy")
pytest.register_assert_rewrite("tests.lab", "tests.netns", "tests.node", "tests.e2e.common")
_BPF = {"x86_64": 321, "aarch64": 280}
"""Number of the bpf(2) system call by machine."""
_OPEN_FILES = 65_536
"""A test with 5,000 connections has both ends of each."""

COMPILED = os.environ.get("L7PROXY_TEST_COMPILED") == "1"
"""Conversations and parsers are tried as workers run them; otherwise as sources."""
if COMPILED:
    folder = compiled.modules()
    if folder is None:
        raise pytest.UsageError("nothing is compiled of these sources: make compile")
    for name in [name for name in sys.modules if name.split(".")[0] in compiled.PACKAGES]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    if not str(importlib.import_module("l7proxy.relay").__file__).endswith(".so"):
        raise pytest.UsageError(f"{folder} is not what is imported")


@cache
def privileged_refusal() -> str:
    """Why privileged tests cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    if importlib.util.find_spec("bcc") is None:
        return "needs Debian's python3-bpfcc (make install)"
    if not _may_create_map():
        return "needs a kernel that lets root use bpf(2)"
    return ""


def _may_create_map() -> bool:
    # union bpf_attr for BPF_MAP_CREATE (0): type ARRAY (2), key size, value size, entries.
    attributes = (ctypes.c_uint32 * 16)(2, 4, 4, 1)
    number = _BPF.get(os.uname().machine, -1)
    descriptor = int(ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, ctypes.sizeof(attributes)))
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def pytest_configure(config: pytest.Config) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard) if hard >= 0 else _OPEN_FILES, hard))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if COMPILED:
        left = [item for item in items if item.get_closest_marker("sources")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    refusal = privileged_refusal()
    for item in items:
        if refusal and item.get_closest_marker("privileged"):
            item.add_marker(pytest.mark.skip(reason=refusal))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: Any) -> None:
    """Where root and BPF are there, everything can be installed and run: a skip would hide a broken set-up."""
    if report.skipped and not hasattr(report, "wasxfail") and not privileged_refusal():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped on a machine where nothing may be: {reason}"
