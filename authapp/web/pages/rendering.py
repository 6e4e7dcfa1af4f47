"""Renders pages: our templates, or those that the app puts in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import (
    Response,
    after_this_request,
    current_app,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from authapp.accounts.identity import ANONYMOUS
from authapp.authentication.factors.passkeys.relying_party import RelyingParty
from authapp.brand import Brand
from authapp.web.app_state import Mount, state_of
from authapp.web.guards import login_url
from authapp.web.middleware.headers import form_targets, other_page_policy, page_policy
from authapp.web.pages.notices import notices, tells_of_log_out

TEMPLATES = Path(__file__).parents[2] / "templates"
_STATIC = Path(__file__).parents[2] / "static"
_BASE = "authapp/base.html"
_TO_THE_MINUTE = Markup('<time datetime="{}">{}</time>')
_TO_THE_SECOND = Markup('<time datetime="{}" data-seconds>{}</time>')


@dataclass(frozen=True, slots=True)
class PageContext:
    """The variable `authapp` of our templates; no template of the app's own sees it.

    Attributes:
        mounted: what there is to link to.
        is_visitor_known: False on the worst of days: a page that asks who the visitor is would
            fail in turn.
    """

    brand: Brand
    mounted: Mount
    is_visitor_known: bool = True
    is_error: bool = False

    @property
    def has_mail(self) -> bool:
        """Whether people can be sent to a page that mails them something."""
        return state_of().services.outbox.enabled

    @property
    def has_passkeys(self) -> bool:
        """Whether people can log in by passkeys here."""
        return not state_of().services.passkeys.why_off

    @property
    def trusts_browsers(self) -> bool:
        """Whether people are asked if a browser shall need no second factor for a while."""
        return state_of().services.factors.trusts_browsers

    @property
    def passkey_site(self) -> RelyingParty:
        """The site that passkeys belong to, where there are any."""
        return state_of().services.passkeys.relying_party

    @property
    def takes_sign_ups(self) -> bool:
        """Whether people without an invitation may sign up, so that pages link to the form."""
        return not state_of().services.registration.policy.needs_invitation

    @staticmethod
    def login_url(onward: str | None = None) -> str | None:
        return login_url(onward)

    def notices(self) -> list[str]:
        """The messages that the form before left. An error page shows none: the browser may have
        asked for a picture, and nobody would see them."""
        return [] if self.is_error else notices()

    @staticmethod
    def tells_of_log_out(messages: list[str]) -> bool:
        return tells_of_log_out(messages)

    @staticmethod
    def time(at: datetime, *, seconds: bool = False) -> str:
        """A time as text."""
        return f"{at:{'%-d %b %Y, %H:%M:%S' if seconds else '%-d %b %Y, %H:%M'}} UTC"

    def moment(self, at: datetime, *, seconds: bool = False) -> Markup:
        """A time as an element, which `local_times.js` shows in the visitor's own time zone."""
        element = _TO_THE_SECOND if seconds else _TO_THE_MINUTE
        return element.format(at.isoformat(timespec="seconds"), self.time(at, seconds=seconds))


def render_page(
    template: str,
    *,
    is_visitor_known: bool = True,
    is_error: bool = False,
    has_pictures: bool = False,
    **values: Any,
) -> str:
    """The page as HTML, in the current request.

    Args:
        template: as `authapp/login.html`. The app's own template of this name comes first.
        is_visitor_known: whether the page may ask who the visitor is.
        has_pictures: it shows a picture from wherever somebody chose.
    """
    state = state_of()
    values["authapp"] = PageContext(state.brand, state.mount, is_visitor_known, is_error)
    if not is_visitor_known:
        values["current_user"] = ANONYMOUS
    page = render_template(template, **values)
    if not (_is_ours(template) and _is_ours(_BASE)):
        _send_policy(other_page_policy(form_targets(state.services.redirect_hosts)))
    elif has_pictures:
        _send_policy(page_policy(form_targets(state.services.redirect_hosts), "https:"))
    return page


@dataclass(frozen=True, slots=True)
class Question:
    """Asks before an act that cannot be undone. The button sends the form that acts.

    Attributes:
        sentences: what will happen.
        action: where the form is sent.
        back: where Cancel leads.
        fields: what the form sends.
    """

    heading: str
    sentences: Sequence[str]
    button: str
    action: str
    back: str
    fields: Sequence[tuple[str, str]] = ()


def ask(question: Question, problem: str | None = None) -> str:
    """The page that asks.

    Args:
        problem: why the act was refused when the form was sent.
    """
    return render_page("authapp/question.html", question=question, problem=problem)


def static_file(filename: str) -> Response:
    """A file of our own: the style sheet and the icon."""
    return send_from_directory(_STATIC, filename)


def favicon() -> Response:
    """The icon for browsers that ask for it by this name, whatever a page says."""
    return static_file("favicon.ico")


def change_password() -> ResponseReturnValue:
    """Where password managers send a person (W3C, A Well-Known URL for Changing Passwords)."""
    return redirect(url_for("authapp.pages.password"), 303)


def brand_style() -> Response:
    """The style sheet with the brand's colour; pages link to it if there is one."""
    response = Response(state_of().brand.style, mimetype="text/css")
    response.headers["Cache-Control"] = "no-cache"  # ask whether it changed
    response.add_etag()
    return response.make_conditional(request)  # type: ignore[return-value]


def _is_ours(template: str) -> bool:
    found = current_app.jinja_env.get_template(template).filename
    return found is not None and Path(found).is_relative_to(TEMPLATES)


def _send_policy(policy: str) -> None:
    def add(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    after_this_request(add)
