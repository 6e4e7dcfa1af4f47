"""The security headers of our answers."""

from collections.abc import Collection

# with the end of a session (OWASP ASVS 5.0, 14.3.1)
CLEAR_SITE_DATA = {"Clear-Site-Data": '"cache", "storage"'}
CLEAR_CACHE = {"Clear-Site-Data": '"cache"'}


def form_targets(hosts: Collection[str]) -> str:
    """
    Args:
        hosts: hosts a form may lead to; browsers hold the redirect after log-in to this too.
            Named without a scheme, they may be reached by ours or by https.
    """
    return " ".join(["'self'", *hosts])


def page_policy(targets: str, images: str) -> str:
    """The Content-Security-Policy of our own pages, which load nothing from elsewhere but images.

    Scripts are files of our own, and ask nobody but us. Pages are complete without them.

    Args:
        targets: what `form_targets` says.
        images: the origin of a logo, `https:` for the picture that somebody chose, or empty.
    """
    sources = f"'self' data: {images}".rstrip()
    own = f"script-src 'self'; connect-src 'self'; style-src 'self'; img-src {sources}"
    return f"default-src 'none'; {own}; {other_page_policy(targets)}"


def other_page_policy(targets: str) -> str:
    """The policy of our pages in a template of the app: it says what that may load."""
    return f"form-action {targets}; base-uri 'none'; frame-ancestors 'none'"


def security_headers(policy: str, *, secure: bool) -> dict[str, str]:
    """
    Args:
        policy: of a page, if it has none of its own.
        secure: whether all of this host is reached by https only.
    """
    fixed = {
        "Content-Security-Policy": policy,
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
