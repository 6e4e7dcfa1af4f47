"""Messages to people: reasons for a sign-out, results of a form, errors."""

from authapp.accounts.audit import Event
from authapp.sessions.records import EndReason

SIGNED_OUT = {
    EndReason.IDLE: "You were signed out because you had not been here for a while.",
    EndReason.ABSOLUTE: "You were signed out because some time has passed since you logged in.",
    EndReason.PASSWORD_CHANGED: "You were signed out because your password was changed.",
    EndReason.EMAIL_CHANGED: "You were signed out because your email was changed.",
    EndReason.REVOKED_BY_USER: "You were signed out because you ended this session elsewhere.",
    EndReason.REVOKED_BY_ADMIN: "You were signed out because an administrator ended this session.",
    EndReason.DEACTIVATED: "You were signed out because this account was deactivated.",
    EndReason.EVICTED_BY_CAP: (
        "You were signed out because you logged in on too many devices; the oldest ends."
    ),
    EndReason.FACTORS_CHANGED: "You were signed out because your second factor was changed.",
    EndReason.ENDED_FOR_EVERYBODY: ("You were signed out because everybody was, as a precaution."),
    EndReason.CHANGED_IN_SQL: "You were signed out because an operator changed this account.",
    EndReason.REFRESH_REUSED: (
        "You were signed out because somebody used a token that had been used before."
    ),
    EndReason.LOST: (
        "You were signed out because a failure of our database took your last log-in with it. "
        "Please log in again. If you had just signed up, sign up again."
    ),
}

LOG_IN_FIRST = "Log in to see the page that you asked for."

CONFIRM_FIRST = "Right so far. Confirm your email to log in: we have sent you a mail."

INVALID_LINK = {
    "verify": "This link or code is used, replaced or too old. Have another mail sent, below.",
    "invitation": (
        "This invitation is used, revoked, too old, or for another address. Ask for a new one."
    ),
}

LOGIN_EXPIRED = "That took too long, or the code was wrong too often. Log in again."

WRONG_FACTOR = "This code is not right, or was used before. Wait for the next one and try again."

TOO_SHORT_NOW = "Your password is shorter than a new one has to be. Please choose a longer one."

# notices of what a form did, by the names that `notices.redirect_with` takes
DONE = {
    "signed-up": "Your account is ready. Log in to start.",
    "welcome": "Welcome. Your account is ready, and you are logged in.",
    "verified": "Your email is confirmed, and you are logged in.",
    "confirmed": "Your email is confirmed. Log in to start.",
    "resent": "If this account waits for its confirmation, another mail is on its way.",
    "invited": "The invitation is on its way, by mail.",
    "invitation-revoked": "The invitation is void.",
    "logged-out": "You are logged out.",
    "password-short": f"You are logged in. {TOO_SHORT_NOW}",
    "email-asked": (
        "We sent a link to the new address. Your email changes when you follow it and confirm."
    ),
    "email-changed": "Your email was changed. From now on you log in with the new one.",
    "email-undone": (
        "Your old email is back, and everybody is signed out. We mailed you a link: choose a new "
        "password by it."
    ),
    "email-set": "The email was changed, and this person was signed out everywhere.",
    "account-deleted": "Your account was deleted.",
    "user-deleted": "The account was deleted.",
    "profile": "Your profile was saved.",
    "password": "Your password was changed, and your other devices were signed out.",
    "password-removed": (
        "Your password was removed: log in with a passkey from now on. Your other devices were "
        "signed out."
    ),
    "password-added": "Your password is set, and your other devices were signed out.",
    "reset": "Your new password is set. Log in with it; you were signed out everywhere.",
    "reset-mailed": "A mail with a link to a new password is on its way to this person.",
    "login-expired": LOGIN_EXPIRED,
    "session-ended": "The session was ended.",
    "app-set-up": "Your authenticator app is set up, and your other devices were signed out.",
    "app-removed": "The authenticator app was removed, and your other devices were signed out.",
    "factors-reset": "The second factors of this person were removed. They were told by mail.",
    "roles": "The roles were saved.",
    "role-created": "The role was added. Give it to people on their pages.",
    "role-deleted": "The role was deleted, and nobody holds it any more.",
    "activated": "The account is active.",
    "deactivated": "The account is deactivated and signed out everywhere.",
    "sessions-of-user-ended": "All sessions of this person were ended.",
    "everybody-signed-out": "Everybody is signed out, you too.",
    "passkey-added": "Your passkey is ready. Your other devices were signed out.",
    "passkey-renamed": "The name was saved.",
    "passkey-removed": "The passkey was removed, and your other devices were signed out.",
    "sessions-ended": "All other sessions were ended.",
}

# audit events; which factor one was about, by its detail `what`
FACTORS_HAPPENED = {
    "totp_added": "Authenticator app set up",
    "totp_replaced": "Authenticator app replaced",
    "totp_removed": "Authenticator app removed",
    "passkey_added": "Passkey added",
    "passkey_removed": "Passkey removed",
}

HAPPENED: dict[Event, str] = {
    "user.created": "Account created",
    "user.replaced": "Signed up again, before the email was confirmed",
    "user.activated": "Activated",
    "user.deactivated": "Deactivated",
    "user.deleted": "Account deleted",
    "email.verified": "Email confirmed",
    "invitation.created": "Invitation made",
    "invitation.revoked": "Invitation revoked",
    "profile.changed": "Profile changed",
    "password.changed": "Password changed",
    "identity.confirmed": "Confirmed who it is",
    "email.change_requested": "Change of email asked for",
    "email.changed": "Email changed",
    "email.change_undone": "Change of email undone",
    "account.exported": "Data exported",
    "password.set": "Password set by an operator",
    "password.removed": "Password removed",
    "password.added": "Password set, where there was none",
    "roles.set": "Roles set",
    "role.created": "Role created",
    "role.deleted": "Role deleted",
    "role.granted": "Role granted",
    "role.revoked": "Role taken away",
    "session.begun": "Logged in",
    "session.ended": "Session ended",
    "sessions.ended": "All sessions ended",
    "sessions.ended_for_everybody": "Sessions of everybody ended",
    "login.failed": "Log-in refused",
    "login.limited": "Log-in stopped by a limit",
    "signup.limited": "Sign-up stopped by a limit",
    "password.refused": "Wrong current password",
    "password.limited": "New password stopped by a limit",
    "password.reset": "New password chosen by a link",
    "reset.requested": "Link to a new password asked for",
    "reset.started": "Link to a new password sent by an administrator",
    "reset.limited": "New password by mail stopped by a limit",
    "login.flood": "Many refused attempts, counted together",
    "factor.added": "Second factor set up",
    "factor.removed": "Second factor removed",
    "factor.reset": "Second factors removed by an administrator",
    "factor.refused": "Wrong second factor",
    "factor.limited": "Second factor stopped by a limit",
    "recovery_codes.made": "Recovery codes made",
    "recovery_code.used": "Recovery code used",
    "passkey.counter_fell": "Passkey refused, of which there may be a copy",
    "user.created_in_sql": "Account created in SQL",
    "user.changed_in_sql": "Account changed in SQL",
    "user.deleted_in_sql": "Account removed in SQL",
    "roles.changed_in_sql": "Roles changed in SQL",
    "role.changed_in_sql": "A role itself changed in SQL",
    "postgres.lost_commits": "Postgres lost its last changes",
}

COOKIE_DROPPED = (
    "Your password was right, but your browser did not keep you signed in, because this page came "
    "over plain http. Open it with https:// instead. If that does not work, tell whoever runs this "
    "site."
)

# for programs
COOKIE_WILL_BE_DROPPED = (
    "The session's cookie is Secure, and this request came over plain http: most clients will not "
    "keep it. Use https; behind a proxy that ends TLS its operator sets TRUSTED_PROXY_HOPS."
)

REFUSED_PASSKEY = "This passkey was not accepted. Try again, or log in in another way."
UNKNOWN_PASSKEY = (
    "We don't know this passkey; it may have been removed. Choose another, or log in in another "
    "way."
)

WRONG_CREDENTIALS = "Email or password is not right."

OUTDATED = (
    "This password was replaced by another one. Log in with the new one. If you don't have it, "
    "choose another by “Forgot your password?”, or ask whoever runs this site."
)

# what people read instead of the phrase of the standard
ERROR_PAGES = {
    400: ("We can't read this request", "Go back, reload the page and try again."),
    403: ("You can't see this page", "Your account may not see or do this."),
    404: ("There is no such page", "The address may be mistyped, or what was there is gone."),
    405: ("This can't be opened like that", "Go back and use the button on the page."),
    413: ("That was too much", "Shorten what you typed and try again."),
    429: ("Too many attempts", "Wait a moment, then try again."),
    500: ("Something broke", "It is not your fault, and we have a note of it."),
    501: ("This is not set up here", "Ask whoever runs this service."),
    503: ("We can't answer right now", "Nothing was changed, and you are still signed in."),
}


def too_many_attempts(retry_after: int) -> str:
    """
    Args:
        retry_after: seconds.
    """
    if retry_after < 120:
        return f"Too many attempts. Try again in {retry_after} seconds."
    return f"Too many attempts. Try again in {-(-retry_after // 60)} minutes."


def too_busy(retry_after: int) -> str:
    """
    Args:
        retry_after: seconds.
    """
    return (
        "Many people are logging in right now, so your password was not looked at. "
        f"Try again in {retry_after} seconds."
    )


def within(seconds: int) -> str:
    """The sentence that is added if a change reaches other instances late."""
    return f"Other devices may take up to {seconds} seconds to notice."
