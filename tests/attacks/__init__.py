"""Attacks that are tried, and where: here on the product as it is served, elsewhere beside what they are aimed at.

malformed requests          tests/attacks/test_schemathesis.py, tests/attacks/test_schemathesis_factors.py, tests/attacks/test_fuzzing.py, tests/web/api/test_api.py
request smuggling           tests/attacks/test_smuggling.py
cookie tossing              tests/attacks/test_cookies.py, tests/web/test_cookies.py, tests/serving/test_wsgi.py
header and log injection    tests/attacks/test_injection.py, tests/web/middleware/test_request_log.py
forged hosts and proxies    tests/attacks/test_injection.py, tests/web/test_proxies.py, tests/serving/test_gunicorn.py, tests/serving/test_granian.py
identity past a proxy       tests/deploy/test_guarding.py, tests/web/test_forward_auth_table.py, tests/web/test_original_request.py
reading from elsewhere      tests/web/middleware/test_cors.py
open redirects              tests/web/test_redirects.py
writing to Redis            tests/attacks/test_redis_planted.py, tests/cache/test_versioned_cache.py, tests/crypto/test_sealing.py
cross-origin posts          tests/journeys/test_other_sites.py, tests/web/test_csrf.py
twenty attackers at once      tests/attacks/test_attackers_at_once.py
clickjacking                tests/journeys/test_other_sites.py, tests/web/test_headers.py
web cache deception         tests/attacks/test_caches.py, tests/web/test_headers.py
account enumeration         tests/attacks/test_enumeration.py, tests/attacks/test_enumeration_in_an_outage.py, tests/attacks/test_enumeration_of_imported.py, tests/authentication/test_login.py, tests/web/api/test_api.py
links that are mailed       tests/attacks/test_reset_links.py, tests/attacks/test_signup_links.py, tests/web/pages/test_passkey_sign_up.py, tests/web/pages/test_recovery.py, tests/authentication/test_recovery.py
guessing and flooding       tests/web/test_limits.py, tests/authentication/test_limits.py, tests/authentication/test_login.py
answers of passkeys         tests/authentication/factors/test_passkey_verification.py, tests/authentication/factors/test_passkeys.py, tests/journeys/test_passkeys.py, tests/web/test_passkeys.py
spraying passwords          tests/attacks/test_spraying.py, tests/authentication/test_refused_attempts.py, tests/accounts/test_audit.py
locking somebody out        tests/web/test_devices.py, tests/web/test_limits.py
rights of others            tests/web/test_authorization.py
mass assignment             tests/web/test_authorization.py, tests/web/api/test_account.py
"""  # noqa: E501 - a table
