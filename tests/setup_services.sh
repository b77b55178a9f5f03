#!/usr/bin/env bash
# Sees to it that the tests find a real Postgres, Redis, Chromium and a font. As root on Debian it installs what
# is missing; elsewhere it takes what is on the PATH, and where a part is missing says what to install and fails.
# (The S3 server comes with Python's packages.)
set -euo pipefail

one_of() { for program; do command -v "$program" >/dev/null && return; done; return 1; }
have_postgres() { one_of initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
have_font() {
  [ "$(uname)" != Linux ] || [ -n "$(find /usr/share/fonts "$HOME/.local/share/fonts" -name '*.[to]tf' -print -quit 2>/dev/null)" ]
}

missing() {
  packages=()
  have_postgres || packages+=(postgresql)
  one_of redis-server || packages+=(redis-server)
  one_of chromium chromium-browser google-chrome || packages+=(chromium)
  have_font || packages+=(fonts-dejavu-core)
}

missing
[ ${#packages[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ] && command -v apt-get >/dev/null; then
  echo "Installing ${packages[*]} for the tests: a minute or two, and only this once ..."
  # The tests start servers of their own: the packages' need not run.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  missing
fi

if [ ${#packages[@]} -gt 0 ]; then
  {
    echo "The tests need what this machine does not have: ${packages[*]}. Install it, then run this again:"
    echo "  Debian, Ubuntu:  sudo apt-get install ${packages[*]}"
    echo "  macOS:           brew install postgresql@17 redis && brew install --cask chromium"
    echo "  elsewhere:       the programs initdb and postgres, redis-server, chromium, on the PATH"
  } >&2
  exit 1
fi
