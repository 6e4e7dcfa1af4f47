"""The pages of a sign-up with a passkey. A small script fills in their form, which stands below the
form of a sign-up with a password, and stays hidden without the script."""

from flask.typing import ResponseReturnValue
from wtforms import HiddenField

from authapp.authentication.factors.passkeys.json_forms import RegistrationCredential
from authapp.authentication.registration import SignedUp
from authapp.errors import InvalidField, PasskeyTaken
from authapp.web.api.representations import json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.csrf import from_hidden_origin
from authapp.web.guards import services, unknown_actor
from authapp.web.pages.factors.passkeys import PasskeyForm
from authapp.web.pages.forms import SignupForm, show_errors, text
from authapp.web.pages.signup import answer_sign_up, closed_page, signup_page
from authapp.web.session import mailed_links

passkey_sign_up_pages = OwnBlueprint("passkey_sign_up", __name__)


class PasskeySignupForm(PasskeyForm):
    """The fields that the script copies from the form of a sign-up with a password."""

    email = HiddenField()
    name = HiddenField()


@passkey_sign_up_pages.post("/signup-passkey/options")
def options() -> ResponseReturnValue:
    form = PasskeySignupForm()
    return json_response(services().passkey_sign_up.options(text(form.email), text(form.name)))


@passkey_sign_up_pages.post("/signup-passkey")
def submit() -> ResponseReturnValue:
    if services().registration.policy.needs_invitation:
        return closed_page()
    return _sign_up("")


@passkey_sign_up_pages.post("/signup/<invitation>/passkey")
@from_hidden_origin
def invited_submit(invitation: str) -> ResponseReturnValue:
    mailed_links.refer_nobody()
    return _sign_up(invitation)


def _sign_up(invitation: str) -> ResponseReturnValue:
    services().passkeys.expect_on()
    typed = PasskeySignupForm()
    email, name = text(typed.email).strip(), text(typed.name).strip()
    form = SignupForm({"email": email, "name": name}, is_sent=False)

    try:
        services().registration.validate(email, None, name)
        credential = typed.read(RegistrationCredential)
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return signup_page(form), 400

    def act() -> SignedUp:
        return services().passkey_sign_up.sign_up(
            credential, unknown_actor(), email, name, invitation
        )

    # if nobody is signed up, the browser is told to forget the passkey that it has just made
    rp_id = services().passkey_login.options().rp_id
    try:
        return answer_sign_up(form, act, unknown_passkey=credential.id, rp_id=rp_id)
    except PasskeyTaken as error:
        show_errors(form, {"credential": str(error)})
        return signup_page(form), 409
