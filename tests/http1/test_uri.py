"""The normal form of request targets."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.options import HttpOptions
from parsers.uri import BadTarget, normal, remove_dot_segments, split

STRICT = HttpOptions()
DOTS, ENCODED = "dot segment", "an encoded"
SAME = [
    "/",
    "/a",
    "/a/",
    "/a/b?c=d",
    "/a?x=../%2f//;\\",
    "/.well-known/x",
    "/a..b/...",
    "/a;x=1/b",
    "/%C3%A9",
    "/100%25%20off",
    "/a:b@c",
    "/?x",
]
CHANGED = {"/%61%2D%7e": "/a-~", "/a%7Cb|": "/a%7Cb%7C", '/"<>^`{|}': "/%22%3C%3E%5E%60%7B%7C%7D", "/%3a%41": "/%3aA"}
REFUSED = {
    "/a/../b": DOTS,
    "/a/..": DOTS,
    "/.": DOTS,
    "/%2e%2E/b": DOTS,
    "/.%2e": DOTS,
    "/a/..;/b": DOTS,
    "/a/..;x=y/b": DOTS,
    "/..%3bx/": DOTS,
    "//a": "an empty segment",
    "/a//b": "an empty segment",
    "/a//": "an empty segment",
    "/;/a": "only a parameter",
    "/a/;x/b": "only a parameter",
    "/a%2fb": ENCODED,
    "/a%5Cb": ENCODED,
    "/a%00": ENCODED,
    "/a%0d%0a": ENCODED,
    "/a%7f": ENCODED,
    "/a\\b": "a backslash",
    "/%252e": "double encoding",
    "/%2525": "double encoding",
    "/%25%32%65": "double encoding",
    "/%25u002e": "double encoding",
    "/%u002e": "two hex digits",
    "/%": "two hex digits",
    "/%4": "two hex digits",
    "/%%32e": "two hex digits",
    "/%c0%ae": "not UTF-8",
    "/%ff": "not UTF-8",
    "/\xe9": "0x80",
    "/a?\xe9": "0x80",
    "/a#b": "a fragment",
    "/a?b#c": "a fragment",
}
RELAXED = {
    "allow_dot_segments": {"/a/../b": "/b", "/a/./b/..": "/a/", "/..": "/", "/%2e%2e/a": "/a"},
    "merge_slashes": {"//a///b//": "/a/b/"},
    "allow_encoded_slash": {"/a%2fb": "/a%2fb"},
    "allow_backslash": {"/a\\b%5c": "/a\\b%5c"},
    "allow_encoded_controls": {"/a%00%09": "/a%00%09"},
    "allow_double_encoding": {"/%252e": "/%252e"},
    "allow_bad_escapes": {"/%zz%": "/%zz%", "/%u002e": "/%u002e"},
    "allow_non_ascii_path": {"/\xe9": "/%E9"},
    "allow_non_utf8_path": {"/%ff": "/%ff"},
}
HIDDEN = {
    "allow_dot_segments": ["/a/..;/b", "/..%3b/"],
    "allow_encoded_slash": ["/a%2f..%2fb", "/a%2f../b"],
    "allow_backslash": ["/a\\..\\b", "/a%5c..%5Cb"],
    "allow_bad_escapes": ["/%%32e", "/%2%65", "/%%32f"],
}
"""What stays refused although the option is set: only some servers resolve it."""


def norm(path: str, options: HttpOptions = STRICT) -> str:
    return normal(path.encode("latin-1"), options).decode("latin-1")


@pytest.mark.parametrize("path", SAME)
def test_what_is_plain_stays(path: str) -> None:
    assert norm(path) == path


@pytest.mark.parametrize("path", CHANGED)
def test_escapes_have_one_form(path: str) -> None:
    assert norm(path) == CHANGED[path]


@pytest.mark.parametrize("path", REFUSED)
def test_what_hides_its_meaning_is_refused(path: str) -> None:
    with pytest.raises(BadTarget, match=re.escape(REFUSED[path])):
        norm(path)


@pytest.mark.parametrize(
    ("option", "path", "result"), [(o, p, r) for o, paths in RELAXED.items() for p, r in paths.items()]
)
def test_each_relaxation_allows_its_own(option: str, path: str, result: str) -> None:
    with pytest.raises(BadTarget):
        norm(path)
    assert norm(path, replace(STRICT, **{option: True})) == result


@pytest.mark.parametrize(("option", "path"), [(o, p) for o, paths in HIDDEN.items() for p in paths])
def test_a_relaxation_opens_nothing_else(option: str, path: str) -> None:
    with pytest.raises(BadTarget):
        norm(path, replace(STRICT, **{option: True}))


@pytest.mark.parametrize(
    "target",
    [
        "a",
        "?x",
        "*",
        "https://a/",
        "ftp://a/",
        "http:/a",
        "http:///a",
        "http://a",
        "http://a?x",
        "http://b@a/",
        "http://a#b/",
        "http://a%2f/",
        "a:80",
    ],
)
def test_a_target_of_no_known_form_is_refused(target: str) -> None:
    with pytest.raises(BadTarget):
        split(target.encode(), b"GET")


def test_forms_of_targets() -> None:
    assert split(b"/a?b", b"GET") == (None, b"/a?b")
    assert split(b"*", b"OPTIONS") == (None, b"*")
    assert split(b"hTTp://[::1]:80/a?b", b"GET") == (b"[::1]:80", b"/a?b")


PIECES = st.sampled_from([*"/.;%?#ab2eEfFcC5u\\~|", "%2e", "%2F", "..", "%41", "%25", "%c3%a9"])
TARGETS = st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces))


@given(TARGETS)
def test_the_normal_form_is_stable_and_resolves_to_itself(target: str) -> None:
    try:
        once = norm(target)
    except BadTarget:
        return
    assert norm(once) == once
    path, mark, query = once.partition("?")
    assert target.partition("?")[1:] == (mark, query)
    decoded = unquote_to_bytes(path)
    assert decoded == unquote_to_bytes(target.partition("?")[0])
    # However often a server decodes, it ends in the same segments.
    for form in (path.encode(), decoded, unquote_to_bytes(decoded)):
        bare = re.sub(rb";[^/]*", b"", form)
        assert remove_dot_segments(bare) == bare and b"\\" not in form
        assert form.count(b"/") == path.count("/") and b"//" not in bare and b"\0" not in form


@given(TARGETS, st.sampled_from([*RELAXED]))
def test_relaxations_are_stable_too(target: str, option: str) -> None:
    options = replace(STRICT, **{option: True})
    try:
        once = norm(target, options)
    except BadTarget:
        return
    assert norm(once, options) == once
