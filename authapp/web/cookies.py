"""Reads our cookie from the raw header: exactly one, spelled exactly so, or none.

Parsers disagree on repeated names (Werkzeug takes the first), on two Cookie headers (gunicorn joins
them with a comma) and on blanks around names, and a neighbouring site can use that to plant a
session. So anything but one clean pair counts as no session.
"""


def read_cookie(header: str, name: str) -> str | None:
    """The value of the only cookie called `name`, or None.

    Args:
        header: the Cookie header as received.
    """
    if name not in header:
        return None
    found: str | None = None
    for part in header.split(";"):
        key, separator, value = part.removeprefix(" ").partition("=")
        # case, blanks, commas and quotes count: what another parser could take for ours spoils it
        if key.strip(' \t,"').rpartition(",")[2].strip().lower() == name.lower():
            if key != name or not separator or found is not None:
                return None
            found = value
        elif name.lower() in value.lower():
            return None  # a second Cookie header, joined with a comma
    return found
