#!/bin/bash
# Set up the first user and the bucket (here: a database) from DOCKER_INFLUXDB_INIT_*, then serve.
set -euo pipefail
[ "${1:-influxd}" = influxd ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
  chown -R influxdb /var/lib/influxdb2 /etc/influxdb2
  exec setpriv --reuid=influxdb --regid=influxdb --init-groups "$0" "$@"
fi

# The value of the variable $1, or the content of the file that $1_FILE names; refused where neither is given.
given() {
  local file=$1_FILE
  if [ -n "${!file:-}" ]; then
    cat "${!file}"
  elif [ -n "${!1:-}" ]; then
    printf '%s' "${!1}"
  else
    echo "missing parameter, cannot init InfluxDB: $1" >&2
    return 1
  fi
}

data=/var/lib/influxdb2
export INFLUXDB_REPORTING_DISABLED=true INFLUXDB_HTTP_AUTH_ENABLED=true INFLUXDB_HTTP_FLUX_ENABLED=true INFLUXDB_HTTP_LOG_ENABLED=false \
  INFLUXDB_MONITOR_STORE_ENABLED=false INFLUXDB_DATA_QUERY_LOG_ENABLED=false INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:9999 \
  INFLUXDB_BIND_ADDRESS=127.0.0.1:8088 INFLUXDB_META_DIR=$data/meta INFLUXDB_DATA_DIR=$data/data INFLUXDB_DATA_WAL_DIR=$data/wal
if [ "${DOCKER_INFLUXDB_INIT_MODE:-}" = setup ] && [ ! -e $data/set-up ]; then
  user=$(given DOCKER_INFLUXDB_INIT_USERNAME)
  password=$(given DOCKER_INFLUXDB_INIT_PASSWORD)
  token=$(given DOCKER_INFLUXDB_INIT_ADMIN_TOKEN)
  bucket=$(given DOCKER_INFLUXDB_INIT_BUCKET)
  given DOCKER_INFLUXDB_INIT_ORG >/dev/null
  influxd run &
  until wget -q --spider http://127.0.0.1:9999/ping; do
    kill -0 $!
    sleep 0.2
  done
  ask() { wget -q -O /dev/null --post-data "q=$1" "http://127.0.0.1:9999/query?u=$user&p=$password"; }
  ask "CREATE USER \"$user\" WITH PASSWORD '$password' WITH ALL PRIVILEGES"
  ask "CREATE USER \"token\" WITH PASSWORD '$token' WITH ALL PRIVILEGES"
  ask "CREATE DATABASE \"$bucket\""
  kill $!
  wait $! || true
  touch $data/set-up
fi
exec standin-proxy
