"""The security headers of every answer of our own application."""

from collections.abc import Collection

# the browser drops its copies of private pages together with the session (OWASP ASVS 5.0, 14.3.1)
CLEAR_SITE_DATA = {"Clear-Site-Data": '"cache", "storage"'}


def security_headers(form_targets: Collection[str], *, secure: bool) -> dict[str, str]:
    """
    Args:
        form_targets: hosts a form may lead to; browsers hold the redirect after log-in to this too.
            Named without a scheme, they may be reached by ours or by https.
        secure: whether we are reached by https only.
    """
    targets = " ".join(["'self'", *form_targets])
    fixed = {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; img-src 'self' data: https:; "
            f"form-action {targets}; base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # not no-referrer: with it browsers send `Origin: null`, which the origin check refuses
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    if secure:
        fixed["Strict-Transport-Security"] = "max-age=31536000"
    return fixed
