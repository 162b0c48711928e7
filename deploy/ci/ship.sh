#!/bin/sh
# Push what was built here and verify it; people answer the gate. The templates beside this file run it.
#
# ASHAT_CI_ID, ASHAT_CI_DESCRIPTION    the update id, and what it brings in a line
# ASHAT_CI_INFO                        anything else worth knowing, such as the address of the job
# ASHAT_CI_SOURCE                      the tree or the artifact (default: here); with
# ASHAT_CI_DIGEST, _SUBDIRECTORY       the sha256 that an artifact must have, and the part of it
# ASHAT_CI_PUBLIC, ASHAT_CI_TARGET     the blocks of the servers (default: public, omega)
# ASHAT_CI_BUILDER_KEY                 this builder's private key (PEM), which targets names; default: a new one
# ASHAT_CI_RESULT                      the file for `deploy status --json` (default: ashat-result.json)
# PREFECT_API_URL, PREFECT_API_AUTH_STRING, ASHAT_LEDGER_URL    the team's control plane and ledger
set -eu
: "${ASHAT_CI_ID:?say which update id}" "${ASHAT_CI_DESCRIPTION:?say in a line what it brings}"
: "${PREFECT_API_URL:?name the control plane of the team}" "${ASHAT_LEDGER_URL:?name the ledger of the team}"
result=${ASHAT_CI_RESULT:-ashat-result.json}

# A home for this job alone, so that no key outlives it.
umask 077
ASHAT_HOME=$(mktemp -d)
export ASHAT_HOME
trap 'rm -rf "$ASHAT_HOME"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -n "${ASHAT_CI_BUILDER_KEY:-}" ]; then
    mkdir "$ASHAT_HOME/trust"
    printf '%s\n' "$ASHAT_CI_BUILDER_KEY" >"$ASHAT_HOME/trust/builder.pem"
fi
unset ASHAT_CI_BUILDER_KEY

set -- "$ASHAT_CI_ID" "$ASHAT_CI_DESCRIPTION" "${ASHAT_CI_INFO:-}" --source "${ASHAT_CI_SOURCE:-.}" \
    --public "${ASHAT_CI_PUBLIC:-public}" --target "${ASHAT_CI_TARGET:-omega}"
[ -z "${ASHAT_CI_DIGEST:-}" ] || set -- "$@" --digest "$ASHAT_CI_DIGEST"
[ -z "${ASHAT_CI_SUBDIRECTORY:-}" ] || set -- "$@" --subdirectory "$ASHAT_CI_SUBDIRECTORY"

code=0
# A job that was cut off while it pushed goes on when it is run again.
deploy push --resume "$@" && deploy verify "$ASHAT_CI_ID" || code=$?

umask 022
if deploy status "$ASHAT_CI_ID" --json >"$result.part"; then
    mv "$result.part" "$result"
    if [ -n "${GITHUB_OUTPUT:-}" ]; then
        python3 - "$result" >>"$GITHUB_OUTPUT" <<'PYTHON'
import json, sys
status = json.load(open(sys.argv[1], encoding="utf-8"))
for name in ("stage", "bundle", "evidence"):
    print(f"{name}={status.get(name) or ''}")
PYTHON
    fi
else
    rm -f "$result.part"
fi
exit "$code"
