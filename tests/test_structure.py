"""The shape of the code base: which package may import which, and how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "parsers": {"parsers"},
    "policies": {"policies", "parsers.facts", "parsers.kafka_schema"},
    "sockmap": {"sockmap"},
    "l7proxy": {"l7proxy", "parsers", "policies", "sockmap"},
}
"""What each package may import of ours: whole packages, or single modules."""
NO_IO = {"asyncio", "socket", "logging", "subprocess", "threading", "time", "uvloop", "aiohttp", "selectors", "os"}
"""What a sans-I/O module has no use for."""
SANS_IO = [*sorted((ROOT / "parsers").glob("*.py")), ROOT / "l7proxy" / "ops.py"]
MAX_FILE, MAX_FUNCTION, LONG_FUNCTION = 400, 100, 35


def ours() -> list[Path]:
    """All Python files of the project."""
    folders = [*MAY_IMPORT, "tests", "bench", "demo"]
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(module: str, permitted: set[str]) -> bool:
    """True if a module of ours lies in what is permitted; the package itself is named by its first part."""
    names = {module, module.rsplit(".", 1)[0]}
    return bool(names & permitted) or module.split(".")[0] in permitted


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dependencies_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} holds no Python file"
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in sorted(imports(path))
        if module.split(".")[0] in {*MAY_IMPORT, "tests", "bench", "demo"}
        and not allowed(module, MAY_IMPORT[package])
        # `from parsers import facts` names the package on the way to the module.
        and not any(module == entry.split(".")[0] for entry in MAY_IMPORT[package] if "." in entry)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_check_of_directions_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from parsers import http1, facts\n    import l7proxy.relay\n")
    assert imports(file) == {"parsers", "parsers.http1", "parsers.facts", "l7proxy.relay"}
    assert [m for m in sorted(imports(file)) if not allowed(m, MAY_IMPORT["policies"])] == [
        "l7proxy.relay",
        "parsers",
        "parsers.http1",
    ]


@pytest.mark.parametrize("path", SANS_IO, ids=lambda path: path.name)
def test_parsers_do_no_io(path: Path) -> None:
    assert {module.split(".")[0] for module in imports(path)} & NO_IO == set()


def test_what_the_packages_import_is_declared() -> None:
    """It is Python's own, or Debian's bcc, or installed by its name: what only the tests' own tools bring is not there
    on a node."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {plain(re.split(r"[^\w.-]", one)[0]) for one in project["dependencies"]}
    files = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]
    modules = {module.split(".")[0] for path in files for module in imports(path)}
    modules -= {*sys.stdlib_module_names, *MAY_IMPORT, "bcc"}
    brought_by = packages_distributions()
    assert {module for module in modules if not declared & set(map(plain, brought_by.get(module, [])))} == set()


def plain(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_grows_too_long() -> None:
    paths = [*ours(), *(ROOT / "sockmap" / "bpf").glob("*.[ch]"), *(ROOT / "scripts").iterdir()]
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in paths}
    assert {path: size for path, size in sizes.items() if size > MAX_FILE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in ours()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: size for name, size in lengths.items() if size > MAX_FUNCTION} == {}
    long = sorted(name for name, size in lengths.items() if size > LONG_FUNCTION)
    assert len(long) <= len(lengths) / 10, "\n".join(long)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_nothing_is_loaded_or_attached_at_import(package: str) -> None:
    """Importing any module needs no root, no BPF, no compiler, and prints nothing."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]
    code = f"import importlib; [importlib.import_module(n) for n in {names!r}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_line_needs_no_bpf() -> None:
    """`explain`, `check` and `observe` work on machines without bcc."""
    code = "import sys; sys.modules['bcc'] = None; import l7proxy.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_bash_scripts_parse() -> None:
    for path in [*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"]:
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert path.stat().st_mode & 0o111, f"{path} cannot be executed"
