"""How the fuzzers are run: by people for long, by tests for a moment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def fuzz(begin: Callable[[Path], None], play: Callable[[bytes], None]) -> None:
    """Fuzz until an input fails or libFuzzer's options end it. `begin` makes inputs in a folder that has none."""
    import atheris  # which not every machine has

    places = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if places and not places[0].is_file():
        places[0].mkdir(parents=True, exist_ok=True)
        if not any(places[0].iterdir()):
            begin(places[0])
    atheris.Setup([*sys.argv, "-max_len=4000"], play)
    atheris.Fuzz()


def short_run(module: str, runs: int, folder: Path) -> None:
    """A run whose inputs are the same each time. Raises AssertionError with the fuzzer's words if one fails."""
    argv = [sys.executable, "-m", module, str(folder / "corpus"), f"-artifact_prefix={folder}/"]
    argv += [f"-runs={runs}", "-seed=1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=250, stdin=subprocess.DEVNULL)
    said = re.search(r"Done (\d+) runs", done.stderr)  # it may do a few more than it is asked for
    assert done.returncode == 0 and said and int(said[1]) >= runs, done.stderr[-5000:]
