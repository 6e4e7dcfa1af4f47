"""The forms of the pages: labels, hints and shape. The use cases validate what a value means."""

from collections.abc import Mapping
from typing import Any

from flask import request
from wtforms import (
    BooleanField,
    EmailField,
    Field,
    Form,
    HiddenField,
    IntegerField,
    PasswordField,
    SelectMultipleField,
    StringField,
    URLField,
)
from wtforms.validators import DataRequired, InputRequired, Length, NumberRange

from authapp.accounts.invitations import DEFAULT_DAYS, MAX_DAYS
from authapp.accounts.profiles import MAX_IMAGE, MAX_NAME
from authapp.web.api.bodies import MAX_FORM, read_form
from authapp.web.guards import services

_CODE = {"inputmode": "numeric", "maxlength": "20"}


def _strip(value: str | None) -> str | None:
    """Drop the blanks that pasting brings along. Passwords keep theirs: there a blank counts."""
    return value.strip() if value else value


class PageForm(Form):
    """Base of every form on the pages.

    It has no CSRF token: `csrf.py` accepts an unsafe request only from our own origin, and a
    visitor who only looks at a form gets no session from it.
    """

    longest = MAX_FORM  # bytes

    def __init__(self, data: Mapping[str, str] | None = None, *, is_sent: bool = True) -> None:
        """
        Args:
            is_sent: off for a form beside the one that the request sends.
        """
        is_sent = is_sent and request.method == "POST"
        typed = read_form(request, self.longest) if is_sent else None
        super().__init__(formdata=typed, data=data)


class NewPasswordField(PasswordField):
    """The field of a password that is being chosen."""

    def __init__(self, label: str, **how: Any) -> None:
        least = services().password_policy.min_length
        hint = f"At least {least} characters. A few unrelated words work well; pasting is fine."
        super().__init__(label, description=hint, render_kw={"data-min-length": str(least)}, **how)


class SignupForm(PageForm):
    email = EmailField(
        "Email",
        filters=[_strip],
        validators=[DataRequired("Enter your email, like name@example.org.")],
    )
    name = StringField(
        "Name (optional)",
        description="Shown to you, and to the apps you use with this account.",
        filters=[_strip],
        validators=[Length(max=MAX_NAME, message=f"Use at most {MAX_NAME} characters.")],
    )
    password = NewPasswordField("Password", validators=[InputRequired("Choose a password.")])


class ConfirmEmailForm(PageForm):
    """The code of a mail, or its link; with the password, unless it was typed in this browser."""

    email = EmailField("Email", filters=[_strip])
    code = StringField(
        "Code", description="The 8 digits in the mail.", filters=[_strip], render_kw=_CODE
    )
    password = PasswordField("Password", description="The one that you signed up with.")


class ResendForm(PageForm):
    email = EmailField(
        "Email",
        id="resend-email",
        filters=[_strip],
        validators=[DataRequired("Enter the email you signed up with.")],
    )


class LoginForm(PageForm):
    email = EmailField(
        "Email",
        filters=[_strip],
        validators=[DataRequired("Enter the email you signed up with.")],
    )
    password = PasswordField("Password", validators=[InputRequired("Enter your password.")])
    remember = BooleanField("Keep me signed in on this device")
    next = HiddenField()


class ProfileForm(PageForm):
    longest = 2 * MAX_FORM  # the address of a picture may be long

    name = StringField(
        "Name",
        filters=[_strip],
        validators=[Length(max=MAX_NAME, message=f"Use at most {MAX_NAME} characters.")],
    )
    image = URLField(
        "Picture address (optional)",
        description="A link to a picture that starts with https://. Leave it empty for none.",
        filters=[_strip],
        validators=[Length(max=MAX_IMAGE, message=f"Use at most {MAX_IMAGE} characters.")],
    )


class PasswordForm(PageForm):
    current_password = PasswordField(
        "Current password", validators=[InputRequired("Enter your current password.")]
    )
    new_password = NewPasswordField(
        "New password", validators=[InputRequired("Choose a new password.")]
    )


class SetPasswordForm(PageForm):
    """The first password of an account that has none."""

    new_password = NewPasswordField("Password", validators=[InputRequired("Choose a password.")])


class ConfirmForm(PageForm):
    password = PasswordField("Password", validators=[InputRequired("Enter your password.")])
    next = HiddenField()


class FactorForm(PageForm):
    """A second factor: a code of an app or, by `method`, a recovery code."""

    code = StringField(
        "Code", filters=[_strip], validators=[InputRequired("Enter the code.")], render_kw=_CODE
    )
    method = HiddenField()
    next = HiddenField()

    def ask_recovery_code(self) -> None:
        """Asks for a recovery code in place of a code of the app."""
        self.method.data = "recovery_code"
        self.code.label.text = "Recovery code"
        self.code.description = "One of the ten that you kept. Each works once."
        self.code.render_kw = {"maxlength": "64", "autocapitalize": "characters"}

    def ask_app_code(self) -> None:
        """Asks for a code of the app."""
        self.method.data = "totp"
        self.code.description = "The 6 digits that your authenticator app shows now."


class LoginFactorForm(FactorForm):
    trust = BooleanField("Do not ask for this in this browser again, for a while")


class ForgotForm(PageForm):
    email = EmailField(
        "Email",
        description="The one that you log in with.",
        filters=[_strip],
        validators=[DataRequired("Enter your email, like name@example.org.")],
    )
    next = HiddenField()


class ResetForm(PageForm):
    """The choice of a password by a link, whose token the form itself brings along."""

    token = HiddenField()
    new_password = NewPasswordField(
        "New password", validators=[InputRequired("Choose a new password.")]
    )


class EmailForm(PageForm):
    email = EmailField(
        "New email",
        filters=[_strip],
        validators=[DataRequired("Enter your new email, like name@example.org.")],
    )


class ConfirmChangeForm(PageForm):
    password = PasswordField("Your password")


class UndoEmailForm(PageForm):
    token = HiddenField()


class DeleteForm(PageForm):
    sure = BooleanField(
        "Delete this account for good",
        validators=[DataRequired("Tick the box if you are sure.")],
    )


class RoleForm(PageForm):
    """A new role. The page shows the permissions to tick that its reader may give."""

    name = StringField(
        "Name",
        description="Letters, digits and . _ : - without blanks, like auditor.",
        filters=[_strip],
        validators=[DataRequired("Enter a name, like auditor.")],
    )
    permissions = SelectMultipleField("What it allows", validate_choice=False)


class InvitationForm(PageForm):
    """An invitation. The page shows the roles to tick that its reader may give."""

    email = EmailField(
        "Email (optional)",
        description="The only address that may use it. It is mailed there, where mail is on.",
        filters=[_strip],
    )
    days = IntegerField(
        "Days",
        default=DEFAULT_DAYS,
        description=f"How long it counts, 1 to {MAX_DAYS}.",
        validators=[
            InputRequired("Enter a number of days."),
            NumberRange(1, MAX_DAYS, f"Enter a number from 1 to {MAX_DAYS}."),
        ],
    )


class AuditForm(PageForm):
    """The filter of the audit log. The browser sends it by GET."""

    user = StringField(
        "Person", description="An email, part of a name, or an id.", filters=[_strip]
    )
    event = StringField("What happened")
    address = StringField("Address", description="Like 192.0.2.7.", filters=[_strip])
    since = StringField(
        "Since", description="Like 2026-11-27 10:30 (UTC); or 15m, 2h, 7d ago.", filters=[_strip]
    )

    def __init__(self) -> None:
        super(PageForm, self).__init__(formdata=request.args)


def show_errors(form: Form, errors: Mapping[str, str]) -> None:
    """Put each reason beside its field, or above the form if no visible field has that name."""
    for name, text_of_error in errors.items():
        reason = _sentence(text_of_error)
        field = form._fields.get(name)
        if field is None or isinstance(field, HiddenField):
            form.form_errors.append(reason)
        else:
            field.errors = [*field.errors, reason]


def _sentence(reason: str) -> str:
    """A reason as the API words it, made a sentence to stand alone on a page."""
    ending = "" if reason.endswith((".", "!", "?")) else "."
    return f"{reason[:1].upper()}{reason[1:]}{ending}"


def text(field: Field) -> str:
    """The content of a text field; empty where none was sent."""
    return field.data or ""
