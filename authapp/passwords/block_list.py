"""Block list: common and breached passwords, and those that an operator adds.

The common and breached ones lie in `common_passwords.bin`, a set of shortened hashes:

    65,536 bytes    how many entries begin with each two bytes of a hash
    3 bytes each    the rest of every entry, sorted

An entry is the first five bytes of the SHA-256 of a folded password. So one password in about 1.8
million is refused by chance. `common_passwords.md` names the lists that the file was made from.
"""

import mmap
import unicodedata
from array import array
from bisect import bisect_left
from functools import cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

from authapp.errors import SettingError

SHORTEST = 8  # characters of the shortest entry: no setting accepts a shorter password
PREFIXES = 1 << 16
REST = 3  # bytes of an entry after its prefix
MAX_FILE = 4 * 1024 * 1024  # bytes of an operator's file: about 400,000 lines, read in a second
COMMON_PASSWORDS = Path(__file__).with_name("common_passwords.bin")


def folded(password: str) -> str:
    """A password as lists are compared: in lower case, without the variants of a character."""
    return unicodedata.normalize("NFKC", password).casefold()


class BlockList:
    """The passwords that nobody may choose, whoever they are.

    Args:
        own_file: the path of an operator's list, see `read_lines`; empty for none.
    Raises:
        SettingError: the file can't be read; one line that names the remedy.
    """

    def __init__(self, own_file: str = "") -> None:
        self._own = array("Q", sorted(map(_long_hash, read_lines(own_file) if own_file else ())))

    def __len__(self) -> int:
        """How many passwords an operator added."""
        return len(self._own)

    def is_common(self, text: str) -> bool:
        """Whether a folded password is a common or a breached one."""
        prefix, rest = split_hash(text)
        entries, starts = _common_passwords()
        found = entries[PREFIXES + REST * starts[prefix] : PREFIXES + REST * starts[prefix + 1]]
        return any(found[at : at + REST] == rest for at in range(0, len(found), REST))

    def is_own(self, text: str) -> bool:
        """Whether a folded password is one that the operator added."""
        wanted = _long_hash(text)
        at = bisect_left(self._own, wanted)
        return at < len(self._own) and self._own[at] == wanted


def read_lines(own_file: str) -> set[str]:
    """The passwords of an operator's file, folded: one a line, UTF-8.

    Empty lines count for nothing, and neither do lines that begin with a hash sign and a blank.

    Raises:
        SettingError
    """
    advice = "set it to the path of a text file with one password a line, or leave it empty"
    try:
        with Path(own_file).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise SettingError(f"PASSWORD_BLOCKLIST: {own_file}: {reason}; {advice}") from None
    if len(content) > MAX_FILE:
        raise SettingError(
            f"PASSWORD_BLOCKLIST: {own_file} is longer than {MAX_FILE // 1024 // 1024} MiB; "
            "keep the passwords that are most common"
        )
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SettingError(f"PASSWORD_BLOCKLIST: {own_file} is not UTF-8; {advice}") from None
    entries = (line.strip() for line in lines if not line.startswith("# "))
    return {folded(entry) for entry in entries if entry not in {"", "#"}}


def split_hash(text: str) -> tuple[int, bytes]:
    """The prefix and the rest of the entry that a folded password has in the file."""
    digest = sha256(text.encode()).digest()
    return int.from_bytes(digest[:2]), digest[2 : 2 + REST]


def _long_hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8])


@cache
def _common_passwords() -> "tuple[mmap.mmap, array[int]]":
    """The file, which all workers share in memory, and where the entries of each prefix start."""
    with COMMON_PASSWORDS.open("rb") as file:
        entries = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return entries, array("I", accumulate(entries[:PREFIXES], initial=0))
