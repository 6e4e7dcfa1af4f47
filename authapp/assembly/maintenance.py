"""Builds from the settings what removes stale data."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from authapp.assembly.stores import Stores
from authapp.authentication.factors.pending_logins import prune_pending
from authapp.config import Config
from authapp.mail.one_time_links import prune_links
from authapp.mail.queue import MailQueue
from authapp.sessions.housekeeping import SessionHousekeeping
from authapp.sessions.maintenance import BATCH, RETENTION, Maintenance
from authapp.storage.locks import Locks
from authapp.storage.redis import redis_client


def build_maintenance(
    config: Config,
    stores: Stores,
    housekeeping: SessionHousekeeping,
    mails: MailQueue,
    clock: Callable[[], datetime],
) -> Maintenance:
    def remove_links() -> int:
        return prune_links(stores.database, clock() - RETENTION, BATCH)

    def remove_pending() -> int:
        return prune_pending(stores.database, clock(), BATCH)

    return Maintenance(
        housekeeping=housekeeping,
        changes=stores.changes,
        locks=Locks(redis_client(config.REDIS_URL, retries=0), config.KEY_PREFIX),
        others=(
            ("old mails removed", partial(mails.prune, RETENTION, BATCH)),
            ("old links removed", remove_links),
            ("log-ins that waited in vain removed", remove_pending),
        ),
    )
