"""Compiles what a worker runs for each request with mypyc, which comes with mypy and takes the sources as they are:
``python scripts/compile.py``. See l7proxy/compiled.py for where it goes, and when it is used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from l7proxy.compiled import FOLDER, PACKAGES, ROOT, modules, note

HOT = (
    *("ops", "output", "held", "frames", "half", "relay", "straight", "fastpath", "offers"),
    *("recorder", "metrics", "cql_judge"),
    *("flowjson", "flowparts", "flowgrpc", "flowkafka", "flowcql"),
    *("http1*", "http2*", "kafka*", "cassandra*"),
)
"""Modules of l7proxy, and those of parsers but for these:"""
LEFT = {"__init__", "options", "facts"}
"""Data classes that the supervisor pickles."""
_BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup
setup(name="hot", packages=[], ext_modules=mypycify(sys.argv[1:], opt_level="1", group_name="hot", multi_file=True),
      script_args=["-q", "build_ext", "--inplace", "-j2"])
"""


def hot(root: Path) -> list[str]:
    """Their files, from `root`."""
    found = {path for name in HOT for path in (root / "l7proxy").glob(f"{name}.py")}
    found |= {path for path in (root / "parsers").glob("*.py") if path.stem not in LEFT}
    return sorted(str(path.relative_to(root)) for path in found)


def main() -> int:
    """Compile into a new folder, which then takes the place of the former one. Status 1: it failed."""
    if modules() is not None:
        print("compile: all is there")
        return 0
    new = FOLDER.with_name("compiling")
    shutil.rmtree(new, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, new / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "pyproject.toml", new)  # mypy's settings
    files = hot(new)
    print(f"compile: {len(files)} modules, for a minute or two", flush=True)
    done = subprocess.run([sys.executable, "-c", _BUILD, *files], cwd=new, capture_output=True, text=True, check=False)
    if done.returncode:
        print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
        print("compile: error: mypyc or the C compiler failed (see above)", file=sys.stderr)
        return 1
    shutil.rmtree(new / "build")
    note(new)
    shutil.rmtree(FOLDER, ignore_errors=True)
    new.rename(FOLDER)
    print(f"compile: done, {FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
