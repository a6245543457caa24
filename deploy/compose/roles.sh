#!/bin/sh
# Run once by the Postgres image, in an empty data folder: the roles that
# `relay migrate up --grant` gives their rights.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username postgres --dbname shop \
  --set writer="$SHOP_DB_PASSWORD" --set relay="$RELAY_DB_PASSWORD" <<'SQL'
CREATE ROLE outbox_writer LOGIN PASSWORD :'writer';
CREATE ROLE outbox_relay LOGIN PASSWORD :'relay';
SQL
