#!/usr/bin/env bash
# Dumps Dagster's storage. The corpus itself needs no database: a rescan reports it again.
#   backup-postgres.sh FOLDER        keeps the last seven dumps in FOLDER
set -euo pipefail
folder="${1:?usage: backup-postgres.sh FOLDER}"
url="${DAGSTER_POSTGRES_URL:?DAGSTER_POSTGRES_URL is not set}"
mkdir -p "$folder"
file="$folder/dagster-$(date -u +%Y%m%dT%H%M%SZ).dump"
# pg_dump does not know SQLAlchemy's driver suffix.
pg_dump --format=custom --file="$file.tmp" "${url/+psycopg2/}"
mv "$file.tmp" "$file"
ls -1t "$folder"/dagster-*.dump | tail -n +8 | xargs -r rm --
