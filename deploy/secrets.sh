#!/bin/sh
# Makes the passwords of compose.yaml, each once: what is there already is left as it is.
# The folder is closed to other accounts of this host; the files in it must be readable by the containers' users.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 0700 secrets

random() { od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'; }

# keep NAME TEXT: writes TEXT to secrets/NAME unless that file holds something.
keep() {
  if [ ! -s "secrets/$1" ]; then
    printf '%s' "$2" > "secrets/$1.new"
    chmod 0444 "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
  fi
}

keep postgres_password "$(random)"
keep grafana_password "$(random)"
echo "secrets/ holds $(ls secrets | tr '\n' ' ')"
