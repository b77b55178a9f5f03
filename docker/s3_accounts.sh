#!/bin/sh
# Makes an account for the labeler, which reads artifacts and adds the clips of imports, and one for workers, which
# read and write all of them, in a MinIO server. `docker compose run --rm s3_accounts` runs it, as often as one
# likes; docs/operations.md says when. An account may not list or administer anything, nor delete anything but
# superseded checkpoints and the clips of an import that failed.
set -eu
secrets=${SECRETS:-/run/secrets} policies=/tmp/policies
export MC_CONFIG_DIR=/tmp/mc
mkdir -p "$policies"

# policy NAME ACTIONS [STATEMENT]: let the account NAME do ACTIONS with the artifacts, and what STATEMENT says
policy() {
  cat >"$policies/$1.json" <<JSON
{
  "Version": "2012-10-17",
  "Statement": [{ "Effect": "Allow", "Action": [$2], "Resource": ["arn:aws:s3:::lockstep/artifacts/*"] }${3:+, $3}]
}
JSON
}

policy labeler '"s3:GetObject"' \
  '{ "Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": ["arn:aws:s3:::lockstep/artifacts/imported/*"] }'
policy worker '"s3:GetObject", "s3:PutObject"' \
  '{ "Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": ["arn:aws:s3:::lockstep/artifacts/*/checkpoint-*"] }'
mc alias set lockstep "${S3_ENDPOINT:-http://minio:9000}" "$(cat "$secrets/user")" "$(cat "$secrets/password")" >/dev/null
for service in labeler worker; do
  account=lockstep-$service
  mc admin policy create lockstep "$account" "$policies/$service.json"
  mc admin user add lockstep "$account" "$(cat "$secrets/${service}_secret")"
  mc admin user info lockstep "$account" | grep -q "PolicyName: $account" || mc admin policy attach lockstep "$account" --user "$account"
done
