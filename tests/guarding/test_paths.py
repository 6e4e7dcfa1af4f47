"""A path counts if every proxy and app reads the same page from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authapp.guarding.paths import other_readings, segments_of

NORMAL = {
    "/": ("",),
    "/a": ("a",),
    "/a/": ("a", ""),
    "/a/b.c": ("a", "b.c"),
    "/.well-known/x": (".well-known", "x"),
    "/...": ("...",),
    "/%61dmin": ("admin",),
    "/a%20b": ("a b",),
    "/100%25": ("100%",),
    "/caf%C3%A9": ("café",),
    "/caf\xc3\xa9": ("café",),
    "/a;b=1/c": ("a;b=1", "c"),
    "/a:b@c!$&'()*+,=~": ("a:b@c!$&'()*+,=~",),
}


@pytest.mark.parametrize("path", NORMAL)
def test_normal(path: str) -> None:
    assert segments_of(path) == NORMAL[path]


OTHERS = (
    *("", "*", "a", "admin/", "http://a/b"),
    *("//", "//a", "/a//b", "/a//"),
    *("/.", "/..", "/./a", "/a/.", "/a/..", "/a/../b", "/../"),
    *("/%2e", "/%2E%2e/a", "/a%2ejpg", "/.%2e/a"),
    *("/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a\\b", "\\a"),
    *("/%252e%252e/a", "/a%252fb", "/a%255Cb"),
    *("/%ff", "/%c0%ae", "/%c0%af", "/\xff", "/%e2%82", "/%ed%a0%80"),
    *("/%", "/%4", "/%zz", "/%u002e"),
    *("/a b", "/a\tb", "/a\x00b", "/a%00b", "/a%0d%0ab", "/a%7f", "/a#b", "/a?b"),
)


@pytest.mark.parametrize("path", OTHERS)
def test_not_normal(path: str) -> None:
    assert segments_of(path) is None


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    segments = segments_of(f"/{text}")
    if segments is not None:
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]
        assert not any("\\" in segment or "/" in segment for segment in segments)
        list(other_readings(segments))


def test_segments_are_cut_as_servlet_containers_do() -> None:
    assert list(other_readings(("a", "b"))) == []
    assert list(other_readings(("a;x=1", "b;"))) == [("a", "b")]
    assert list(other_readings(("a", "..;", "b"))) == [None]
    assert list(other_readings((";", "b"))) == [None]
