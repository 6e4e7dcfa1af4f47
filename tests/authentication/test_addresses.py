"""Addresses of clients: one spelling of each, and the network that counts as one client."""

import pytest

from authapp.authentication.addresses import network_of, read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("  192.0.2.7\t", "192.0.2.7"),
        ("198.51.100.1:1111", "198.51.100.1"),
        ('"198.51.100.1:1111"', "198.51.100.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:8080", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("::1", "::1"),
        ("", None),
        (" ", None),
        ('"', None),
        ('""', None),
        ("unknown", None),
        ("_hidden", None),
        ('"_hidden:80"', None),
        ("unix:", None),
        ("-", None),
        ("192.0.2.7, 10.0.0.1", None),
        ("192.0.2.7:", None),
        ("192.0.2.7:port", None),
        ("192.0.2.7:123456", None),
        ("192.0.2.07", None),  # to some that is octal
        ("192.0.2", None),
        ("3221225991", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]443", None),
        ("2001:db8::1]:443", None),
        ("example.org", None),
        ("١٩٢.0.2.7", None),
        ("<script>", None),
        ("1" * 1_000_000, None),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str | None) -> None:
    assert read_address(text) == address
    if address is not None:
        assert read_address(address) == address


@pytest.mark.parametrize(
    ("address", "network", "wider"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:DB8:1:2:0:0:0:9", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("::1", "::/64", "::/48"),
        ("2002:c000:207::1", "192.0.2.7", "192.0.2.7"),  # 6to4
        ("2002:c000:207:ffff::1", "192.0.2.7", "192.0.2.7"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45", "192.0.2.45"),  # Teredo
        ("64:ff9b::192.0.2.7", "192.0.2.7", "192.0.2.7"),  # NAT64
        ("::ffff:0:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("", "", ""),
        ("unix:", "", ""),
        ("192.0.2.7, 10.0.0.1", "", ""),
    ],
)
def test_a_customer_is_one_network(address: str, network: str, wider: str) -> None:
    assert network_of(address) == network
    assert network_of(address, 48) == wider
