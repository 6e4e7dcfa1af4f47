"""The Postgres schema that holds our tables, and how statements come to name it."""

from typing import Any

DEFAULT_SCHEMA = "authapp_data"


def in_schema(schema: str) -> dict[str, Any]:
    """Execution options of an engine: statements on our tables name this schema.

    The models name the default schema, so there nothing has to be translated.
    """
    return {} if schema == DEFAULT_SCHEMA else {"schema_translate_map": {DEFAULT_SCHEMA: schema}}
