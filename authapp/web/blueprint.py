"""`OwnBlueprint`: the blueprints of authapp, whose routes are not bent by settings of the app."""

from typing import Any

from flask import Blueprint
from flask.typing import RouteCallable


class OwnBlueprint(Blueprint):
    """A blueprint whose routes answer in the same way in any app.

    Flask would answer OPTIONS with 200, and a proxy that forwards the method takes that for a yes.
    It would redirect `//` in a path, to whatever host the request names.
    """

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: RouteCallable | None = None,
        provide_automatic_options: bool | None = False,
        **options: Any,
    ) -> None:
        options.setdefault("merge_slashes", False)
        super().add_url_rule(
            rule,
            endpoint,
            view_func,
            provide_automatic_options=bool(provide_automatic_options),
            **options,
        )
