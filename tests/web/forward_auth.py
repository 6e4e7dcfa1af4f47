"""The headers by which a guarded app is told who asks."""

NAMES = (
    "Remote-User",
    "Remote-Email",
    "Remote-Name",
    "Remote-Groups",
    "Remote-Amr",
    "Remote-Auth-Time",
    "Remote-Assurance-Level",
    "Remote-Assertion",
)
