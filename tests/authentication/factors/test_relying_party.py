"""The relying party: which addresses browsers keep passkeys for."""

import pytest

from authapp.authentication.factors.passkeys.relying_party import NoRelyingParty, relying_party


@pytest.mark.parametrize(
    ("public_url", "rp_id", "origin"),
    [
        ("https://auth.example.org", "auth.example.org", "https://auth.example.org"),
        ("https://example.org/auth", "example.org", "https://example.org"),
        ("https://example.org:8443/a/b", "example.org", "https://example.org:8443"),
        ("http://localhost:8000", "localhost", "http://localhost:8000"),
        ("http://shop.localhost:8000", "shop.localhost", "http://shop.localhost:8000"),
        ("https://intranet", "intranet", "https://intranet"),
        # browsers of this machine reach it by its name, too
        ("http://127.0.0.1:8000", "localhost", "http://localhost:8000"),
        ("http://[::1]:8000/auth", "localhost", "http://localhost:8000"),
        ("http://127.0.0.1", "localhost", "http://localhost"),
    ],
)
def test_it_is_the_host_that_people_use(public_url: str, rp_id: str, origin: str) -> None:
    found = relying_party(public_url, "Example")
    assert (found.id, found.name) == (rp_id, "Example")
    assert set(found.origins) == {origin}
    assert found.home == origin


@pytest.mark.parametrize(
    ("public_url", "why"),
    [
        ("", "PUBLIC_URL is not set"),
        ("http://auth.example.org", "on https alone"),
        ("http://notlocalhost", "on https alone"),
        ("http://192.0.2.7:8000", "IP address"),
        ("https://127.0.0.1", "IP address"),
        ("https://[::1]:8443", "IP address"),
        ("https://192.0.2.7/auth", "IP address"),
        ("https://127.1", "IP address"),
        ("https://2130706433", "IP address"),
        ("https://0x7f.1", "IP address"),
        ("https://a.0x7f", "IP address"),
    ],
)
def test_what_browsers_refuse_is_refused(public_url: str, why: str) -> None:
    with pytest.raises(NoRelyingParty, match=why):
        relying_party(public_url, "Example")


def test_hosts_that_share_the_cookie_share_passkeys() -> None:
    """Only those of the domain, by https, and only if they are trusted to act for people at all."""
    found = relying_party(
        "https://auth.example.org",
        "Example",
        cookie_domain=".Example.org",
        trusted=[
            "https://shop.example.org",
            "https://example.org",
            "http://plain.example.org",
            "https://evilexample.org",
            "https://example.com",
        ],
    )
    assert found.id == "example.org"
    assert found.origins == {
        "https://auth.example.org",
        "https://shop.example.org",
        "https://example.org",
    }


def test_trusted_origins_alone_share_nothing() -> None:
    found = relying_party("https://example.org", "Example", trusted=["https://shop.example.org"])
    assert found.id == "example.org"
    assert set(found.origins) == {"https://example.org"}


def test_a_domain_of_another_host_is_left_alone() -> None:
    assert relying_party("https://example.com", "E", cookie_domain="example.org").id == (
        "example.com"
    )
