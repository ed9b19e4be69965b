#!/bin/sh
# Write each secret of the stack once, at random, into the volume of those who need it; what is there stays.
set -eu
for name in postgres/password influxdb/password influxdb-token/token grafana/password; do
  file=/secrets/$name
  if [ ! -s "$file" ]; then
    # The volume reaches only containers that need it; in there each has a user of its own, so all may read.
    head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$file.new"
    chmod 444 "$file.new"
    mv "$file.new" "$file"
  fi
done
