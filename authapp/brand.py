"""The brand that pages and mails show: name, logo, colour, and links of whoever runs this."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Brand:
    """The name and look of this service on pages and in mails. Empty: not shown.

    Attributes:
        logo_url: https or a path.
        color: of buttons, as `#rrggbb`.
        terms_url: with `privacy_url` and `support_url`, a link in the footer.
    """

    name: str = "authapp"
    logo_url: str = ""
    color: str = ""
    terms_url: str = ""
    privacy_url: str = ""
    support_url: str = ""

    @property
    def logo_origin(self) -> str:
        """The origin that pages load the logo from; empty if it is our own."""
        parts = urlsplit(self.logo_url)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    @property
    def text_on_color(self) -> str:
        """Black or white, whichever can be read better on the colour."""
        if not self.color:
            return _WHITE
        is_dark = _contrast(self.color, _WHITE) >= _contrast(self.color, _BLACK)
        return _WHITE if is_dark else _BLACK

    @property
    def style(self) -> str:
        """A style sheet with the colour; empty without one."""
        if not self.color:
            return ""
        text = self.text_on_color
        away = _BLACK if text == _WHITE else _WHITE
        colors = {
            "--aa-accent": self.color,
            "--aa-accent-strong": _mixed(self.color, away),  # under the pointer
            "--aa-on-accent": text,
        }
        rule = ":root{" + ";".join(f"{name}:{value}" for name, value in colors.items()) + "}"
        return f"{rule}\n@media (prefers-color-scheme:dark){{{rule}}}\n"


_WHITE, _BLACK = "#ffffff", "#000000"


def _parts(color: str) -> list[int]:
    return list(bytes.fromhex(color.removeprefix("#")))


def _mixed(color: str, other: str) -> str:
    parts = zip(_parts(color), _parts(other), strict=True)
    return "#" + bytes((4 * one + two) // 5 for one, two in parts).hex()


def _contrast(one: str, other: str) -> float:
    """Between two colours, from 1 to 21 (WCAG 2.2, 1.4.3)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (part / 255 for part in _parts(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
