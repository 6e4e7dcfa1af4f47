"""The device that a User-Agent names, for people: "Firefox on Windows"."""

from functools import lru_cache

from authapp.accounts.visible_text import shown

MAX_USER_AGENT = 400  # characters that are stored and parsed; 16 KB take a second to parse


@lru_cache(maxsize=1024)
def device_name(user_agent: str) -> str:
    """A short name, "Unknown device" where the text says nothing."""
    from ua_parser import parse  # noqa: PLC0415 — reading its tables takes a while, and few need it

    # parts of it may be told as they are
    found = parse(shown(user_agent[:MAX_USER_AGENT]))
    browser = found.user_agent.family if found.user_agent else ""
    system = found.os.family if found.os else ""
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or "Unknown device"
