"""The filter that a visitor of `/admin/audit` asks for."""

from dataclasses import dataclass, replace
from uuid import UUID

from authapp.accounts.audit import EVERYTHING, Filter, Person
from authapp.accounts.emails import Email
from authapp.accounts.identity import Identity, Permission
from authapp.errors import InvalidField
from authapp.web.guards import current_user, services
from authapp.web.pages.forms import AuditForm, text

MAX_PEOPLE = 50  # whose events are shown together


def events_asked_for(form: AuditForm) -> tuple[Filter, str]:
    """Which events to show, and about whom they are, in words.

    Raises:
        InvalidField: all that can't be read, by field.
    """
    errors: dict[str, str] = {}
    which, people = EVERYTHING, _People()
    try:
        which = services().audit.filter(text(form.event), text(form.address), text(form.since))
    except InvalidField as invalid:
        errors |= invalid.errors
        if "event" in errors:  # the page has a list, so the message need not name all events
            errors["event"] = "choose one from the list"
    try:
        people = _people_asked_for(text(form.user))
    except InvalidField as invalid:
        errors |= invalid.errors
    if errors:
        raise InvalidField(errors)
    return replace(which, user_ids=people.ids, email=people.unknown_email), people.about


@dataclass(frozen=True, slots=True)
class _People:
    """The people whose events a visitor asks for.

    Attributes:
        ids: their ids; None: everybody.
        unknown_email: an email that nobody has, in place of ids.
    """

    ids: list[UUID] | None = None
    unknown_email: Email | None = None
    about: str = ""


def _people_asked_for(asked: str) -> _People:
    """People by id, and for visitors who may see users also by email or part of a name.

    Raises:
        InvalidField: nobody is meant, or so many people are that it says nothing.
    """
    if not asked:
        return _People()
    may_see_users = current_user.can(Permission.USERS_READ)
    if user_id := _as_id(asked):
        person = services().users.get(user_id) if may_see_users else None
        return _People([user_id], about=_named(person) if person else str(user_id))
    if not may_see_users:  # a search would tell which emails and names there are
        raise InvalidField({"user": "write the id of a person; you may not see emails and names"})
    if email := _as_email(asked):
        person = services().users.find(email)
        if person is None:
            return _People(unknown_email=email, about="attempts on an email that nobody has")
        return _People([person.id], about=_named(person))
    part = "".join(c for c in asked if c.isprintable())
    found = services().audit.people(part, MAX_PEOPLE + 1) if part else []
    if len(found) > MAX_PEOPLE:
        raise InvalidField({"user": f"more than {MAX_PEOPLE} people match; write more of the name"})
    if not found:
        raise InvalidField({"user": "nobody matches; write an email, a part of a name, or an id"})
    one = len(found) == 1
    return _People([p.id for p in found], about=_named(found[0]) if one else f"{len(found)} people")


def _named(person: Identity | Person) -> str:
    return person.name or person.email


def _as_id(asked: str) -> UUID | None:
    try:
        return UUID(asked)
    except ValueError:
        return None


def _as_email(asked: str) -> Email | None:
    try:
        return services().parse_email(asked)
    except InvalidField:
        return None
