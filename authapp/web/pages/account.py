"""The pages people use: home, log-in, log-out, account, password, sessions."""

from uuid import UUID

from flask import abort, make_response, redirect, request, url_for
from flask.typing import ResponseReturnValue

from authapp.errors import (
    Busy,
    EmailUnverified,
    InvalidCredentials,
    InvalidField,
    ReplacedPassword,
    StoreUnavailable,
    TooManyAttempts,
)
from authapp.sessions.records import EndReason
from authapp.web.api.bodies import read_form
from authapp.web.api.representations import SessionView
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    known_actor,
    login_required,
    require_live,
    require_step_up,
    services,
    step_up_required,
)
from authapp.web.pages.forms import (
    LoginForm,
    PasswordForm,
    ProfileForm,
    SetPasswordForm,
    show_errors,
    text,
)
from authapp.web.pages.messages import COOKIE_DROPPED, LOG_IN_FIRST, OUTDATED, WRONG_CREDENTIALS
from authapp.web.pages.notices import redirect_with, say
from authapp.web.pages.rendering import Question, ask, render_page
from authapp.web.pages.signup import come_back_page, unconfirmed_page
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import (
    clear_site_data,
    count_unreadable,
    counted_if_unreadable,
    devices,
    log_in_visitor,
    log_out_visitor,
    next_target,
    sign_out_reason,
    start_url,
    will_lose_cookie,
)

pages = OwnBlueprint("pages", __name__)


# not strict: else the empty path of `GET http://any.example` is redirected to the host it names
@pages.get("/", strict_slashes=False)
def home() -> ResponseReturnValue:
    return render_page("authapp/home.html", reason=sign_out_reason())


@pages.get("/login")
def login() -> ResponseReturnValue:
    asked_for = next_target()
    onward = asked_for or start_url()
    if auth_session().live:
        return redirect(onward)
    is_second_try = "cookie" in request.args
    reason = sign_out_reason() or (LOG_IN_FIRST if asked_for and not is_second_try else None)
    form = LoginForm(data={"next": onward})
    is_dropped = is_second_try and will_lose_cookie()
    problem = COOKIE_DROPPED if is_dropped else None
    return render_page("authapp/login.html", form=form, reason=reason, problem=problem)


@pages.post("/login")
def login_submit() -> ResponseReturnValue:
    with counted_if_unreadable():
        form = LoginForm()
    try:
        if not form.validate():
            count_unreadable()
            return render_page("authapp/login.html", form=form), 400
        log_in_visitor(text(form.email), text(form.password), remember=form.remember.data)
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/login.html", form=form), 400
    except InvalidCredentials as error:
        is_replaced = isinstance(error, ReplacedPassword)
        problem = OUTDATED if is_replaced else WRONG_CREDENTIALS
        return render_page("authapp/login.html", form=form, problem=problem), 401
    except EmailUnverified as error:
        return unconfirmed_page(error, text(form.email)), 403
    except (TooManyAttempts, Busy) as error:
        return come_back_page("authapp/login.html", form, error)
    onward = next_target() or start_url()
    if will_lose_cookie():
        onward = url_for(".login", next=onward, cookie="sent")
    elif services().password_policy.is_short(text(form.password)):
        return redirect_with("password-short", ".password", next=onward)
    return redirect(onward, 303)


@pages.get("/logout")
def logout() -> ResponseReturnValue:
    """A button. A link alone ends nothing: another site, or a mail, may have placed it."""
    return render_page("authapp/logout.html", next=next_target())


@pages.post("/logout")
def logout_submit() -> ResponseReturnValue:
    read_form(request)  # which bounds it
    onward = next_target()
    log_out_visitor()
    return _logged_out(onward)


def _logged_out(onward: str | None = None) -> ResponseReturnValue:
    if not onward:
        say("logged-out")
    response = redirect(onward or start_url(), 303)
    response.headers.update(clear_site_data())
    return response


@pages.get("/logged-out.css")
def forget_pages() -> ResponseReturnValue:
    """An empty style sheet of the page after log-out, which has the browser forget pages it froze.

    The answer to log-out itself comes too early: a browser freezes the private page for its back
    button only when the next page is there.
    """
    response = make_response("", 200)
    response.mimetype = "text/css"
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@pages.get("/account")
@login_required
def account() -> ResponseReturnValue:
    user = require_live().record.user
    form = ProfileForm(data={"name": user.name, "image": user.image})
    return render_page("authapp/account.html", has_pictures=True, form=form, user=user)


@pages.post("/account")
@login_required
def account_submit() -> ResponseReturnValue:
    user = require_live().record.user
    form = ProfileForm()
    if not form.validate():
        return render_page("authapp/account.html", has_pictures=True, form=form, user=user), 400
    try:
        changed = services().users.update_profile(
            user.id,
            # a field that was not sent is left as it is
            text(form.name) if "name" in request.form else None,
            text(form.image) if "image" in request.form else None,
            known_actor(),
        )
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/account.html", has_pictures=True, form=form, user=user), 400
    auth_session().settle(changed)
    return redirect_with("profile", ".account")


@pages.get("/account/password")
@login_required
def password() -> ResponseReturnValue:
    if _has_password():
        return _password_page(PasswordForm())
    require_step_up()
    return _password_page(SetPasswordForm())


def _has_password() -> bool:
    """Whether the page asks for the current password; in an outage it is the same for everybody."""
    try:
        return services().passwordless.has_password(require_live())
    except StoreUnavailable:
        return True


def _password_page(form: PasswordForm | SetPasswordForm) -> str:
    """The page that asks for a new password; log-in may have led here on the way to `next`."""
    onward = next_target() or start_url() if "next" in request.args else None
    return render_page("authapp/password.html", form=form, onward=onward)


@pages.post("/account/password")
@login_required
def password_submit() -> ResponseReturnValue:
    return _change_password() if _has_password() else _set_password()


def _set_password() -> ResponseReturnValue:
    live = require_step_up()
    form = SetPasswordForm()
    try:
        if not form.validate():
            return _password_page(form), 400
        changed = services().passwordless.set_password(live, text(form.new_password), known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _password_page(form), 400
    auth_session().rotate(auth_session().settle(changed))
    return redirect_with("password-added", "authapp.security.security")


def _change_password() -> ResponseReturnValue:
    form = PasswordForm()
    if not form.validate():
        return _password_page(form), 400
    try:
        with rate_limit_of_errors():
            changed = services().password_changes.change_password(
                require_live(),
                text(form.current_password),
                text(form.new_password),
                known_actor(),
                devices(),
            )
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _password_page(form), 400
    issued = auth_session().settle(changed)
    tell_rate_limit(issued.rate_limit)
    auth_session().rotate(issued)
    if onward := next_target():
        say("password")
        return redirect(onward, 303)
    return redirect_with("password", ".account")


@pages.get("/account/sessions")
@login_required
def sessions() -> ResponseReturnValue:
    record = require_live().record
    found = [
        SessionView.of(s, current=record.id) for s in services().sessions.of_user(record.user.id)
    ]
    return render_page("authapp/sessions.html", sessions=found)


@pages.post("/account/sessions/<uuid:session_id>/end")
@login_required
def end_session(session_id: UUID) -> ResponseReturnValue:
    record = require_live().record
    if session_id != record.id:
        require_step_up()  # OWASP ASVS 5.0, 7.5.2
    why = EndReason.LOGOUT if session_id == record.id else EndReason.REVOKED_BY_USER
    ended = services().sessions.end_one(record.user.id, session_id, why, known_actor())
    if not auth_session().settle(ended):
        abort(404)
    if session_id == record.id:
        auth_session().forget()
        return _logged_out()
    return redirect_with("session-ended", ".sessions")


@pages.get("/account/sessions/end-others")
@step_up_required
def end_other_sessions() -> ResponseReturnValue:
    record = require_live().record
    others = len(services().sessions.of_user(record.user.id)) - 1
    signed_in = "another place" if others == 1 else f"{others} other places"
    sentences = [
        f"You are signed in at {signed_in}, and will be signed out there at once.",
        "You stay signed in here.",
    ]
    question = Question(
        heading="End all other sessions?",
        sentences=sentences if others > 0 else ["You are signed in nowhere else."],
        button="End all others",
        action=url_for(".end_other_sessions_submit"),
        back=url_for(".sessions"),
    )
    return ask(question)


@pages.post("/account/sessions/end-others")
@step_up_required
def end_other_sessions_submit() -> ResponseReturnValue:
    ended = services().sessions.end_others(require_live(), EndReason.REVOKED_BY_USER, known_actor())
    auth_session().settle(ended)
    return redirect_with("sessions-ended", ".sessions")
