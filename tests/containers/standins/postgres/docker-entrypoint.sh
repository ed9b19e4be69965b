#!/bin/bash
# Make the cluster the first time, then run what is asked: arguments of `postgres`, or any command.
set -euo pipefail
if [ $# -eq 0 ] || [ "${1:0:1}" = - ]; then
  set -- postgres "$@"
fi
if [ "$1" != postgres ]; then
  exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chown -R postgres "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
fi

# The value of the variable $1, or the content of the file that $1_FILE names.
given() {
  local file=$1_FILE
  if [ -n "${!file:-}" ]; then
    cat "${!file}"
  else
    printf '%s' "${!1:-$2}"
  fi
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=$(given POSTGRES_USER postgres)
  password=$(given POSTGRES_PASSWORD '')
  database=$(given POSTGRES_DB "$user")
  method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [ -z "$password" ] && [ "$method" != trust ]; then
    echo 'Error: Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD' >&2
    exit 1
  fi
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  # A numeric user that has no name, as a pod may have, gets one for as long as initdb asks for it.
  if ! getent passwd "$(id -u)" >/dev/null; then
    export NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/dev/null LD_PRELOAD=libnss_wrapper.so
    echo "postgres:x:$(id -u):$(id -g)::$PGDATA:/bin/false" >/tmp/passwd
  fi
  # shellcheck disable=SC2086 # several arguments
  initdb --username="$user" --pwfile=<(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-}
  unset LD_PRELOAD
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait start
  if [ "$database" != postgres ]; then
    psql --quiet --username="$user" --dbname=postgres --set=name="$database" <<<'CREATE DATABASE :"name";'
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sql) psql --quiet --set=ON_ERROR_STOP=1 --username="$user" --dbname="$database" --file="$script" ;;
      *.sh) bash "$script" ;;
    esac
  done
  pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
  echo 'PostgreSQL init process complete; ready for start up.'
fi
exec "$@"
