#!/usr/bin/env bash
# Makes the secrets of docker-compose.yml, each in a file of its own: deploy/secrets.sh [folder, default: secrets]
#
# A file that is there stays. What an .env of before held (LAYERSWEEP_TOKEN, LAYERSWEEP_WORK_TOKEN, POSTGRES_PASSWORD) is
# taken over. Only you can enter the folder; the files themselves can be read by the containers' users, who are mounted
# nothing but them: that is why they have the mode 444. With LAYERSWEEP_DATABASE_URL the database is that one, and not the
# PostgreSQL of docker-compose.yml (for Kubernetes).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-secrets}

kept() { test -f .env && sed -n "s/^$1=//p" .env | tail -1; }

write() {
  test ! -s "$folder/$1" || return 0
  printf '%s\n' "$2" > "$folder/$1"
  chmod 444 "$folder/$1"
  echo "$folder/$1"
}

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
given() { local found; found=$(kept "$1" || true); printf %s "${found:-$(random)}"; }

install -d -m 700 "$folder"
write token "$(given LAYERSWEEP_TOKEN)"
write work_token "$(given LAYERSWEEP_WORK_TOKEN)"
write postgres_password "$(given POSTGRES_PASSWORD)"
write database_url "${LAYERSWEEP_DATABASE_URL:-postgresql://layersweep:$(cat "$folder/postgres_password")@postgres/layersweep}"
# The key of the profile s3, as its clients and as its server read it.
write s3_credentials "[default]
aws_access_key_id = layersweep
aws_secret_access_key = $(random)"
key=$(sed -n 's/^aws_secret_access_key = //p' "$folder/s3_credentials")
write s3_config '{"identities": [{"name": "layersweep", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "layersweep", "secretKey": "'"$key"'"}]}]}'
