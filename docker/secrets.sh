#!/bin/sh
# Makes the secrets of the full size on its first start, and keeps those that are there: run it as often as you
# like. Under $ROOT (/secrets) lies a folder for each service, a volume of its own, so that each can read what
# it needs and nothing else.
#
#   secrets.sh                      make what is missing; what compose runs first of all
#   secrets.sh worker HOST          print worker.env: what trainers on another host need to reach this one as HOST
#   secrets.sh certificate          print worker.crt, the certificate they check this one by
#
# TLS_NAMES: names and addresses, separated by commas, for which a certificate is made; POSTGRES_PORT, REDIS_PORT,
# S3_PORT: where the three servers are published (docker-compose.remote.yml sets all of these).
# APP, DATABASE: owners (user:group) of the files that Lockstep and Postgres read; empty: whoever runs this.
set -eu
umask 077
root=${ROOT:-/secrets} volumes=${VOLUMES:-/volumes}

# random: 48 hexadecimal digits, without a run of them that looks like a password
random() {
  while :; do
    digits=$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')
    case $digits in *12345*) ;; *) break ;; esac
  done
  printf %s "$digits"
}

# put FILE: write standard input to FILE, whole or not at all
put() {
  cat >"$root/$1.unfinished"
  mv "$root/$1.unfinished" "$root/$1"
}

# once FILE: the secret in FILE, made now if there is none
once() {
  [ -s "$root/$1" ] || random | put "$1"
  cat "$root/$1"
}

# own OWNER FOLDER ...: give the folders and all in them to OWNER
own() {
  owner=$1 && shift
  [ -z "$owner" ] || chown -R "$owner" "$@"
}

make_secrets() {
  for folder in postgres redis minio migrate labeler coordinator worker front; do mkdir -p "$root/$folder"; done

  once postgres/password >/dev/null
  database=$(once migrate/database_password)
  redis=$(once redis/password)
  s3=$(once minio/password)
  once labeler/lockstep_admin_token >/dev/null
  once labeler/lockstep_teacher_token >/dev/null
  printf lockstep | put minio/user

  # Read by Postgres when it makes its database, and never again.
  put postgres/10-lockstep.sql <<SQL
CREATE ROLE lockstep LOGIN PASSWORD '$database';
CREATE DATABASE lockstep OWNER lockstep;
REVOKE ALL ON DATABASE lockstep FROM PUBLIC;
SQL
  printf 'requirepass %s\n' "$redis" | put redis/redis.conf
  for service in migrate labeler coordinator worker; do
    printf 'postgresql+psycopg://lockstep:%s@postgres:5432/lockstep' "$database" | put $service/lockstep_database_url
  done
  for service in labeler coordinator worker; do
    printf 'redis://:%s@redis:6379/0' "$redis" | put $service/lockstep_broker_url
  done
  for service in migrate labeler worker; do
    printf lockstep | put $service/lockstep_s3_access_key
    printf %s "$s3" | put $service/lockstep_s3_secret_key
  done
  [ -z "${TLS_NAMES:-}" ] || make_certificate

  own "${DATABASE:-}" "$root/postgres"
  own "${APP:-}" "$root/redis" "$root/minio" "$root/migrate" "$root/labeler" "$root/coordinator" "$root/worker" "$root/front"
  # The data volumes: their servers run without rights, and could not take them into possession themselves.
  [ ! -d "$volumes/postgres" ] || own "${DATABASE:-}" "$volumes/postgres"
  for volume in redis minio; do [ ! -d "$volumes/$volume" ] || own "${APP:-}" "$volumes/$volume"; done
}

# make_certificate: a key and a certificate signed by itself, for TLS_NAMES; made anew when the names change
make_certificate() {
  if [ -s "$root/front/server.crt" ] && [ "$(cat "$root/front/names" 2>/dev/null)" = "$TLS_NAMES" ]; then return; fi
  names=
  for name in $(printf %s "$TLS_NAMES" | tr ',' ' '); do
    case $name in *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac
    case $name in *:*) kind=IP ;; esac
    names="${names:+$names,}$kind:$name"
  done
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=lockstep \
    -addext "subjectAltName=$names" -addext basicConstraints=critical,CA:TRUE \
    -keyout "$root/front/server.key" -out "$root/front/server.crt" 2>/dev/null
  printf %s "$TLS_NAMES" | put front/names
}

print_worker_env() {
  ca=/run/tls/server.crt
  cat <<ENV
LOCKSTEP_DATABASE_URL=postgresql+psycopg://lockstep:$(cat "$root/migrate/database_password")@$1:${POSTGRES_PORT:-5432}/lockstep?sslmode=verify-full&sslrootcert=$ca&sslnegotiation=direct
LOCKSTEP_BROKER_URL=rediss://:$(cat "$root/redis/password")@$1:${REDIS_PORT:-6379}/0?ssl_cert_reqs=required&ssl_ca_certs=$ca
LOCKSTEP_STORE_URL=s3://lockstep/artifacts
LOCKSTEP_S3_ENDPOINT=https://$1:${S3_PORT:-9000}
LOCKSTEP_S3_ACCESS_KEY=lockstep
LOCKSTEP_S3_SECRET_KEY=$(cat "$root/minio/password")
ENV
}

case ${1:-make} in
  make) make_secrets ;;
  worker) print_worker_env "${2:?name this machine as the workers' host reaches it}" ;;
  certificate) cat "$root/front/server.crt" ;;
  *) echo "secrets.sh: no command $1" >&2; exit 2 ;;
esac
