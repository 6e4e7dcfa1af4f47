"""The findings of an examination; none holds a secret."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is: `warn` works, but should be otherwise; `fail` does not work or is unsafe."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Attributes:
        check: what was examined.
        text: what was found.
        remedy: what to do; advice where the state is ok, else never empty.
    """

    check: str
    state: State
    text: str
    remedy: str = ""


def reason(error: BaseException, *secrets: str | None) -> str:
    """The first line of an error, with these secrets blotted out."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    for secret in filter(None, secrets):
        line = line.replace(secret, "***")
    return line[:200].rstrip(". ")
