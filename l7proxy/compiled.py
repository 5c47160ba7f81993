"""Compiled modules for the workers, which judge every request: made by scripts/compile.py of the same sources. They are
taken if they were made of just these sources, and by this Python; otherwise the sources run as they are.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

PACKAGES = ("l7proxy", "parsers", "policies", "sockmap")
ROOT = Path(__file__).resolve().parent.parent
"""Where the packages are."""
FOLDER = ROOT / "build" / "compiled"
"""Where scripts/compile.py puts copies of them, with what it compiled beside the sources."""
_MADE_OF = "made-of"


def digest(root: Path = ROOT) -> str:
    """Of the sources under `root`, and of what this Python can load."""
    found = hashlib.sha256(str(sysconfig.get_config_var("EXT_SUFFIX")).encode())
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            data = path.read_bytes()
            found.update(f"{path.relative_to(root)} {len(data)}\n".encode())
            found.update(data)
    return found.hexdigest()


def note(folder: Path) -> None:
    """`folder` is complete."""
    (folder / _MADE_OF).write_text(digest(folder), encoding="ascii")


def modules() -> Path | None:
    """The folder to import from, or None if there is none of these sources."""
    try:
        made_of = (FOLDER / _MADE_OF).read_text(encoding="ascii")
    except OSError:
        return None
    return FOLDER if made_of == digest() else None
