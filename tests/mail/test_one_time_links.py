"""One-time links are bound to the account as it was: its password version and its address."""

import pytest

from authapp.mail.one_time_links import Purpose
from authapp.services import Services
from authapp.storage.models import User
from tests.support.people import sign_up
from tests.support.services import sql


def counts(services: Services, purpose: Purpose, *, mailed_to: str = "", change: str = "") -> bool:
    """Whether a link is redeemed, after a change by a way that makes no link void by itself."""
    ada = sign_up(services)
    with services.database.transaction() as db:
        user = db.get_one(User, ada.id)
        issued = services.one_time_links.issue(db, purpose, user, email_canonical=mailed_to)
    if change:
        sql(services, f"UPDATE users SET {change}")
    with services.database.transaction() as db:
        return services.one_time_links.redeem(db, purpose, issued.token) is not None


@pytest.mark.parametrize(
    ("purpose", "may"),
    [("verify", False), ("reset", False), ("change_email", False), ("undo_email", True)],
)
def test_a_newer_password_is_noticed_when_a_link_is_redeemed(
    services: Services, purpose: Purpose, may: bool
) -> None:
    assert counts(services, purpose, change="epoch = epoch + 1") is may


@pytest.mark.parametrize(
    ("purpose", "may"),
    [("verify", False), ("reset", False), ("change_email", True), ("undo_email", True)],
)
def test_a_link_to_another_address_than_the_account_s_proves_nothing(
    services: Services, purpose: Purpose, may: bool
) -> None:
    assert counts(services, purpose, mailed_to="eve@example.org") is may


@pytest.mark.parametrize("purpose", ["verify", "reset", "change_email", "undo_email"])
def test_whoever_is_deactivated_redeems_nothing(services: Services, purpose: Purpose) -> None:
    assert not counts(services, purpose, change="active = false")


@pytest.mark.parametrize("purpose", ["verify", "reset", "change_email", "undo_email"])
def test_a_link_counts_where_nothing_changed(services: Services, purpose: Purpose) -> None:
    assert counts(services, purpose)
