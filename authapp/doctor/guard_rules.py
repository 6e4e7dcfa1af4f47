"""Path rules of forward-auth: each in words, in the order in which they are tried."""

from collections.abc import Iterator

from authapp.config import Config
from authapp.doctor.findings import Finding, State
from authapp.errors import SettingError
from authapp.guarding.rule_file import read_rules
from authapp.guarding.rules import GuardRules, Rule

_CHECK = "guard rules"


def examine(config: Config) -> Iterator[Finding]:
    try:
        rules = read_rules(config.GUARD_RULES)
    except SettingError as error:
        text, _, remedy = str(error).removeprefix("GUARD_RULES: ").rpartition(": ")
        yield Finding(_CHECK, State.FAIL, f"GUARD_RULES can't be used: {text}", remedy)
        return
    if rules is None:
        text = "none: each proxy demands what its own configuration says, for any host"
        yield Finding(_CHECK, State.OK, text, "GUARD_RULES names a file of path rules")
        return
    for rule in rules.rules:
        yield _rule(rule, config)
    yield _return(rules, config)


def _rule(rule: Rule, config: Config) -> Finding:
    check = f"guard rule {rule.number}"
    if not rule.needs_verified or config.is_verification_required:
        return Finding(check, State.OK, str(rule))
    if not config.MAIL_URL:
        text = f"{rule}; but nobody can confirm an address without mail"
        remedy = "set MAIL_URL; or confirm addresses by hand, with users verify EMAIL"
        return Finding(check, State.WARN, text, remedy)
    text = f"{rule}; but people log in without that, as EMAIL_VERIFICATION is off"
    remedy = "set EMAIL_VERIFICATION=required; else these people confirm it on their account page"
    return Finding(check, State.WARN, text, remedy)


def _return(rules: GuardRules, config: Config) -> Finding:
    """Whether log-in leads back to the hosts of the rules."""
    allowed = config.ALLOWED_REDIRECT_HOSTS
    hosts = dict.fromkeys(host for rule in rules.rules for host in rule.hosts)
    own = config.public_origin.partition("://")[2]
    missing = [host for host in hosts if host not in {*allowed, own} and not host.startswith("*.")]
    text = f"{len(rules.rules)} in {config.GUARD_RULES}; other hosts and pages are refused"
    if missing:
        text = f"log-in does not lead back to {', '.join(missing)}"
        return Finding(_CHECK, State.WARN, text, "add it to ALLOWED_REDIRECT_HOSTS")
    return Finding(_CHECK, State.OK, text)
