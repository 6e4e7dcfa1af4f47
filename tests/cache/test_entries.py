"""Records in Redis: whoever decodes the first of them, in however many threads, is served."""

import subprocess
import sys

from tests.support.instances import ROOT

LOOK = """
import authapp.services
from authapp.accounts.credentials import Credentials
from authapp.accounts.store import UserEntry
from authapp.cache import entries
from authapp.sessions.records import SessionRecord
made = entries._decoders.cache_info().misses
for kind in (Credentials, UserEntry, SessionRecord):
    entries._decoders(kind)
print(made, entries._decoders.cache_info().misses)
"""


def test_what_decodes_records_is_made_before_there_are_threads() -> None:
    """Two threads that make it at once can crash the process, so no test lets them try."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "3 3\n"
