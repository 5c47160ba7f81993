"""What is compiled of the workers' code is used if it is of these sources, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from l7proxy import compiled
from tests.e2e.common import assert_judged, from_app, http, policy
from tests.lab import Lab


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the packages."""
    for package in compiled.PACKAGES:
        shutil.copytree(compiled.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_folder_is_taken_for_the_sources_that_it_was_made_of(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "FOLDER", sources)
    assert compiled.modules() is None, "nobody has said that it is complete"
    compiled.note(sources)
    assert compiled.modules() == sources
    file = sources / "parsers" / "http1.py"
    file.write_text(file.read_text() + "\n")
    assert compiled.modules() == sources, "what it was made of is what counts, not what is in it now"
    compiled.note(sources)
    assert compiled.modules() is None


@pytest.mark.parametrize("change", ["text", "name", "more", "less"])
def test_any_change_of_the_sources_counts(sources: Path, change: str) -> None:
    before = compiled.digest(sources)
    assert before == compiled.digest()
    file = sources / "policies" / "match.py"
    if change == "text":
        file.write_text(file.read_text().replace("\n", "\n\n", 1))
    elif change == "name":
        file.rename(file.with_name("matching.py"))
    elif change == "more":
        file.with_name("other.py").touch()
    else:
        file.unlink()
    assert compiled.digest(sources) != before


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.pod("front")
        made.pod("api")
        yield made


def assert_works(lab: Lab, *, compiled_code: bool) -> None:
    """Requests are judged, by workers of this kind."""
    front, api = lab.pods["front"], lab.pods["api"]
    server = lab.serve(api.ns, 80)
    node = lab.start_l7proxy(policy("api", "api", ingress=[{**from_app("front"), "toPorts": [http()]}]))
    assert_judged(lab, front.ns, api.v4, server, client=front.v4)
    status = node.status()
    assert status["compiled"] is compiled_code
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in status["workers"].values()]
    assert maps
    assert all(("hot__mypyc" in text) is compiled_code for text in maps)


@pytest.mark.privileged
def test_workers_run_compiled_code(lab: Lab) -> None:
    assert compiled.modules() is not None, "nothing is compiled of these sources: make compile"
    assert_works(lab, compiled_code=True)


@pytest.mark.privileged
def test_workers_run_sources_of_which_nothing_is_compiled(
    lab: Lab, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(sources))
    assert_works(lab, compiled_code=False)
