"""Whether the clocks of this machine and of the stores agree."""

from collections.abc import Callable

from authapp.doctor.findings import Finding, State

WARN_SECONDS = 2.0
FAIL_SECONDS = 30.0


class Clocks:
    """
    Args:
        now: this machine's clock, in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ahead: dict[str, float] = {}

    def compare(self, name: str, ask: Callable[[], float]) -> None:
        """Notes how far the clock that `ask` reads is ahead of ours, to half the time it took."""
        before = self._now()
        theirs = ask()
        self._ahead[name] = theirs - (before + self._now()) / 2

    def finding(self) -> Finding:
        ahead = {"this machine": 0.0} | self._ahead
        apart = max(ahead.values()) - min(ahead.values())
        told = ", ".join(
            f"{name} {round(seconds, 1) + 0:+.1f} s" for name, seconds in self._ahead.items()
        )
        if not told:
            text = "no store told the time"
            return Finding("clocks", State.WARN, text, "correct what the lines above say")
        if apart <= WARN_SECONDS:
            return Finding("clocks", State.OK, f"they agree: {told}")
        state = State.WARN if apart <= FAIL_SECONDS else State.FAIL
        text = f"they are {apart:.1f} s apart, so sessions end too early or late: {told}"
        return Finding("clocks", state, text, "let NTP (chrony, systemd-timesyncd) set all of them")
