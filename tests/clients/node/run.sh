#!/bin/sh
# Runs amqplib.test.mjs against a broker; needs node 18 or newer, npm and a package registry.
#   run.sh [URL]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/package.json" "$here/amqplib.test.mjs" "$work"
cd "$work"
npm install --silent --no-audit --no-fund --no-package-lock
AMQP_URL=${1:-amqp://guest:guest@127.0.0.1:5672/} node --test
