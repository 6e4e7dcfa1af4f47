"""`PublicLinks`: the links in mails. They begin with PUBLIC_URL, whatever host a request named."""

from urllib.parse import urlencode


class PublicLinks:
    """Makes links to our pages that work anywhere, such as in a mail.

    Args:
        public_url: the setting, which is without a slash at its end.
        url_prefix: what comes before each of our paths in an app that embeds us.
    """

    def __init__(self, public_url: str, url_prefix: str = "") -> None:
        self._base = public_url + url_prefix

    def __call__(self, path: str, **query: str) -> str:
        """The link to a page, like `/verify`, with parameters, like `token`."""
        return f"{self._base}{path}{'?' if query else ''}{urlencode(query)}"
