"""The configuration that `ashat-node init` writes."""

from __future__ import annotations

import json

from ashat.protocol.messages import Role

_TEMPLATE = """\
# The settings of this node. Each can also be given as a flag, or as ASHAT_NODE_NAME in the environment
# (ASHAT_NODE_APP__PORT for one of [app]). Relative paths are relative to this file.
role = {role}
name = {name}
host = {host}
port = {port}
data = "."
{omega}
# tls_cert = "cert.pem"
# tls_key = "key.pem"

[app]
# The program, run in the release's directory. {{port}}, {{release}} and {{data}} stand for its port, its release
# directory and its own data directory; it also finds them as RAOS_PORT, ASHAT_RELEASE and RAOS_DATA.
# command = ["python3", "raos.py"]
# release_command = ["python3"]   # or let raos.toml of the release say it, if it begins with one of these
# port = 0                  # 0 picks a free one and keeps it
#
# Whom it runs as; without it, a release can do whatever this node can. For this the node must run as root.
# user = "raos"
#
# Or a hook, where something else runs the program; ASHAT_RELEASE and ASHAT_BUNDLE say what it is to run.
# hook = ["systemctl", "restart", "raos"]
# url = "http://127.0.0.1:8080"
#
# ca_file = "ca.pem"        # the CA that signed the program's certificate, if that is private
# health_path = "/health"
# start_timeout = 60        # seconds in which a release must become healthy
# settle = 3                # seconds of unbroken health after which a switch holds

[database]
# dsn = "sqlite:///{{data}}/raos.db"
# dsn_file = "dsn"          # the same, in a file of mode 0600
"""
_PINNED = """
# trust_root = "root.json"  # the only root to begin with, as people made it (deploy trust init); else the first given
"""
_OMEGA = """
omega = {url}
license_file = "licence"    # put the licence key into this file, then: chmod 600 licence
# ca_file = "omega-ca.pem"
trust_root = "root.json"    # who approves releases: root.json of trust/authority where deploy trust init ran
# minimum_release_seq = 0   # an older release than this is never installed
"""


def first_config(*, role: Role, name: str, host: str, port: int, omega: str) -> str:
    """Write a node.toml with the settings given and examples of the others."""
    own = {Role.OMEGA: _PINNED, Role.MAINFRAME: _OMEGA.format(url=json.dumps(omega))}
    return _TEMPLATE.format(
        role=json.dumps(str(role)),
        name=json.dumps(name),
        host=json.dumps(host),
        port=port,
        omega=own.get(role, ""),
    )
