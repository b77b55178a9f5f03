#!/bin/sh
# Makes the secrets of the full size on its first start, and keeps those that are there: run it as often as you
# like. Under $ROOT (/secrets) lies a folder for each service, a volume of its own, so that each can read what
# it needs and nothing else.
#
#   secrets.sh                      make what is missing; what compose runs first of all
#   secrets.sh s3 own|shared        give labeler and workers S3 accounts of their own (docker/s3_accounts.sh makes
#                                   them in the server), or the server's one account, as at first
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
  once postgres/password >/dev/null
  once labeler/lockstep_admin_token >/dev/null
  once labeler/lockstep_teacher_token >/dev/null

  rm -f "$root/postgres/10-lockstep.sql" "$root/redis/redis.conf" # of earlier versions

  # Postgres: the owner, for migrate alone, and a role for each other kind of process.
  make_roles "lockstep:$(once migrate/database_password)" \
    "lockstep_labeler:$(once postgres/labeler_password)" \
    "lockstep_coordinator:$(once postgres/coordinator_password)" \
    "lockstep_worker:$(once postgres/worker_password)"
  database_url lockstep "$(cat "$root/migrate/database_password")" | put migrate/lockstep_database_url
  for service in labeler coordinator worker; do
    database_url "lockstep_$service" "$(cat "$root/postgres/${service}_password")" | put $service/lockstep_database_url
  done

  # Redis: everybody sends hints, workers receive them. Without a name there is only a health check.
  make_users "$(once redis/password)" "$(once redis/labeler_password)" "$(once redis/coordinator_password)" \
    "$(once redis/worker_password)"
  for service in labeler coordinator worker; do
    printf 'redis://%s:%s@redis:6379/0' $service "$(cat "$root/redis/${service}_password")" | put $service/lockstep_broker_url
  done

  # S3: the server's account, or one each.
  once minio/password >/dev/null
  printf lockstep | put minio/user
  for service in migrate labeler worker; do
    account=lockstep secret=password
    [ $service = migrate ] || once minio/${service}_secret >/dev/null
    if [ $service != migrate ] && [ -e "$root/minio/own_accounts" ]; then
      account=lockstep-$service secret=${service}_secret
    fi
    printf %s "$account" | put $service/lockstep_s3_access_key
    put $service/lockstep_s3_secret_key <"$root/minio/$secret"
  done
  [ -z "${TLS_NAMES:-}" ] || make_certificate

  own "${DATABASE:-}" "$root/postgres"
  own "${APP:-}" "$root/redis" "$root/minio" "$root/migrate" "$root/labeler" "$root/coordinator" "$root/worker" "$root/front"
  # The data volumes: their servers run without rights, and could not take them into possession themselves.
  [ ! -d "$volumes/postgres" ] || own "${DATABASE:-}" "$volumes/postgres"
  for volume in redis minio; do [ ! -d "$volumes/$volume" ] || own "${APP:-}" "$volumes/$volume"; done
}

# database_url ROLE PASSWORD: the address of the database
database_url() {
  printf 'postgresql+psycopg://%s:%s@postgres:5432/lockstep' "$1" "$2"
}

# make_roles NAME:PASSWORD ...: the SQL that makes the roles, or gives them their passwords, and the database of
# the first. The service `roles` runs it at every start. What a role may do is said in shared/grants.py.
make_roles() {
  {
    for role; do
      name=${role%%:*}
      printf "SELECT 'CREATE ROLE %s' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%s') \\gexec\n" "$name" "$name"
      printf "ALTER ROLE %s LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '%s';\n" "$name" "${role#*:}"
    done
    cat <<'SQL'
SELECT 'CREATE DATABASE lockstep OWNER lockstep' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'lockstep') \gexec
REVOKE ALL ON DATABASE lockstep FROM PUBLIC;
SQL
  } | put postgres/roles.sql
}

# make_users HEALTH LABELER COORDINATOR WORKER: passwords into the part of Redis's configuration that says who
# may do what. Nobody may flush, configure, or list keys. What Celery needs besides keys of its own is
# connections, transactions and, for a worker that gives hints back, a script.
make_users() {
  connect='+@connection +@transaction -@dangerous -@admin'
  queues='~agent_trainer* ~reward_trainer* ~_kombu.binding*'
  send='+lpush +rpush +llen +exists +sadd +smembers +pexpire +persist'
  receive='+@list +@set +@hash +@sortedset +@string +del +unlink +watch +eval +evalsha +script|load'
  put redis/users.conf <<CONF
user default on >$1 resetkeys resetchannels -@all +ping
user labeler on >$2 resetchannels $queues -@all $send $connect
user coordinator on >$3 resetchannels $queues -@all $send $connect
user worker on >$4 resetchannels $queues ~unacked* -@all $send $receive $connect
CONF
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
LOCKSTEP_DATABASE_URL=postgresql+psycopg://lockstep_worker:$(cat "$root/postgres/worker_password")@$1:${POSTGRES_PORT:-5432}/lockstep?sslmode=verify-full&sslrootcert=$ca&sslnegotiation=direct
LOCKSTEP_BROKER_URL=rediss://worker:$(cat "$root/redis/worker_password")@$1:${REDIS_PORT:-6379}/0?ssl_cert_reqs=required&ssl_ca_certs=$ca
LOCKSTEP_STORE_URL=s3://lockstep/artifacts
LOCKSTEP_S3_ENDPOINT=https://$1:${S3_PORT:-9000}
LOCKSTEP_S3_ACCESS_KEY=$(cat "$root/worker/lockstep_s3_access_key")
LOCKSTEP_S3_SECRET_KEY=$(cat "$root/worker/lockstep_s3_secret_key")
ENV
}

for folder in postgres redis minio migrate labeler coordinator worker front; do mkdir -p "$root/$folder"; done
case ${1:-make} in
  make) make_secrets ;;
  s3)
    case ${2:-} in
      own) : | put minio/own_accounts ;;
      shared) rm -f "$root/minio/own_accounts" ;;
      *) echo "secrets.sh: s3 own, or s3 shared" >&2; exit 2 ;;
    esac
    make_secrets
    ;;
  worker) print_worker_env "${2:?name this machine as the workers' host reaches it}" ;;
  certificate) cat "$root/front/server.crt" ;;
  *) echo "secrets.sh: no command $1" >&2; exit 2 ;;
esac
