"""The security headers of every answer of our own application."""

from collections.abc import Collection, Mapping

from flask import Flask, Response, request

# what the browser kept of private pages goes with the session (OWASP ASVS 5.0, 14.3.1)
AFTER_THE_END = {"Clear-Site-Data": '"cache", "storage"'}


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


def register_security_headers(app: Flask, fixed: Mapping[str, str]) -> None:
    """Adds these to every answer that a browser may show, and keeps all but files from being
    stored."""

    known = [(name, name.lower(), value) for name, value in fixed.items()]

    def add(response: Response) -> Response:
        if request.blueprint == "forward_auth" and response.status_code == 200:
            return response  # the proxy reads it, and no browser
        set_by_view = {name.lower() for name in response.headers.keys()}  # noqa: SIM118 - of pairs
        for name, lower, value in known:
            if lower not in set_by_view:
                response.headers.add(name, value)
        if request.endpoint not in {"static", "bootstrap.static"}:
            response.headers["Cache-Control"] = "no-store"
        return response

    app.after_request(add)
