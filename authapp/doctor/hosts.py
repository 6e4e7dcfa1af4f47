"""Which hosts are this machine: what goes there crosses no network."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Judges the name as it is written; it is not looked up."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
