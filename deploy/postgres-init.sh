#!/bin/sh
# Run once, by the postgres image, on new data: authapp owns its database and nothing else.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'END'
\getenv password AUTHAPP_PASSWORD
CREATE ROLE authapp LOGIN PASSWORD :'password';
CREATE DATABASE authapp OWNER authapp;
REVOKE ALL ON DATABASE authapp FROM PUBLIC;
END
