"""Flags and files of `l7proxy accelerate`: what they say together, and what is wrong with them. No root is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from l7proxy import accelerate_config, cli
from l7proxy.accelerate_config import AccelerateConfig, load_accelerate
from l7proxy.config import load_config
from policies.document import DocumentError
from sockmap.btf import Btf, BtfError
from sockmap.config import DatapathError
from sockmap.splice_state import topmost


def accel(folder: Path, text: str) -> Path:
    """accel.yaml with this text."""
    file = folder / "accel.yaml"
    file.write_text(text)
    return file


def test_a_file_says_all_that_flags_say(tmp_path: Path) -> None:
    text = """\
cgroup: [kubepods.slice, /system.slice/envoy.service]
netns: [pod-a, 4711]
port: [8080, 15001]
process: envoy
not_process: [haproxy, curl]
anywhere: true
budget: 256KiB
learn: false
dry_run: true
"""
    assert load_accelerate(accel(tmp_path, text)) == AccelerateConfig(
        cgroup=("kubepods.slice", "/system.slice/envoy.service"),
        netns=("pod-a", "4711"),
        port=(8080, 15001),
        process=("envoy",),
        not_process=("haproxy", "curl"),
        anywhere=True,
        budget=256 << 10,
        learn=False,
        dry_run=True,
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("cgroups: [a]", "3:cgroups: error: unknown key 'cgroups'; did you mean 'cgroup'?"),
        ("port: [80, 0]", "3:port[1]: error: '0' is no port from 1 to 65535"),
        ("port: http", "3:port: error: 'http' is no port from 1 to 65535"),
        ("port: true", "3:port: error: must be a number or a text, not True"),
        ("budget: 1MB", "3:budget: error: '1MB' is no size from 4KiB to 1GiB (such as 65536, 64KiB, 1MiB)"),
        ("budget: 100", "3:budget: error: '100' is no size from 4KiB to 1GiB (such as 65536, 64KiB, 1MiB)"),
        ("learn: perhaps", "3:learn: error: must be true or false, not 'perhaps'"),
        ("process: 7", "3:process: error: must be a string, not 7 (put it in quotes: YAML reads it as another type)"),
        ("netns: {a: b}", "3:netns: error: must be a number or a text, not a mapping"),
    ],
)
def test_an_error_names_file_line_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    file = accel(tmp_path, f"cgroup: a\n# a comment\n{line}\n")
    assert cli.main(["accelerate", "--config", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}:{complaint}\n"


def test_flags_add_to_the_lists_of_the_file_and_replace_its_other_keys(tmp_path: Path) -> None:
    base = load_accelerate(accel(tmp_path, "cgroup: a\nport: 80\nbudget: 64KiB\nanywhere: true\n"))
    both = base.with_flags(cgroup=["b"], port=[81], budget=4096, anywhere=None, learn=False)
    assert both == AccelerateConfig(cgroup=("a", "b"), port=(80, 81), budget=4096, anywhere=True, learn=False)


@pytest.mark.parametrize(("given", "size"), [("4096", 4096), ("64KiB", 65_536), ("1mib", 1 << 20), ("1 GiB", 1 << 30)])
def test_sizes(given: str, size: int) -> None:
    assert accelerate_config.size(given) == size


@pytest.mark.parametrize("flags", [["--port", "x"], ["--budget", "2GiB"], ["--nonsense"]])
def test_a_bad_flag_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["accelerate", "--cgroup", "a", *flags])
    assert ended.value.code == 2 and flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("in_file", [False, True])
def test_without_a_cgroup_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str], in_file: bool) -> None:
    flags = ["--config", str(accel(tmp_path, "port: 80\n"))] if in_file else []
    assert cli.main(["accelerate", *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("l7proxy accelerate: no cgroup is named: `--cgroup PATH`") and "`/` is every process" in said


def test_node_yaml_has_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    node = tmp_path / "node.yaml"
    node.write_text("policies: [policies]\naccelerate:\n  cgroup: /\n  budget: 2MiB\n")
    assert load_config(node).accelerate == AccelerateConfig(cgroup=("/",), budget=2 << 20)
    node.write_text("policies: [policies]\naccelerate:\n  port: 80\n")
    with pytest.raises(DocumentError, match=r"node\.yaml:2:accelerate: error: no cgroup is named"):
        load_config(node)
    node.write_text("policies: [policies]\naccelerate:\n  cgroup: a\n  port: [x]\n")
    with pytest.raises(DocumentError, match=r"node\.yaml:4:accelerate\.port\[0\]: error: 'x' is no port"):
        load_config(node)


def test_a_cgroup_below_another_is_named_once() -> None:
    paths = [Path("/c/a/b"), Path("/c/a"), Path("/c/ab"), Path("/c/a")]
    assert topmost(paths) == [Path("/c/a"), Path("/c/ab")]


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["accelerate", "--cgroup", "/", "--state-dir", str(tmp_path)]) == 1
    assert "l7proxy accelerate: splicing needs root" in capsys.readouterr().err


@pytest.mark.privileged
def test_it_needs_the_kernels_types(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def running() -> Btf:
        raise BtfError("/sys/kernel/btf/vmlinux: No such file or directory")

    monkeypatch.setattr(Btf, "running", running)
    assert cli.main(["accelerate", "--cgroup", "/", "--state-dir", str(tmp_path)]) == 1
    assert "sockets cannot be spliced: /sys/kernel/btf/vmlinux: No such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.privileged
def test_a_namespace_that_is_not_there_is_named() -> None:
    config = AccelerateConfig(netns=("no-such-namespace",))
    with pytest.raises(DatapathError, match=r"no-such-namespace \(/run/netns/no-such-namespace\): No such file"):
        config.scope()
