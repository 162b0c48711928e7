"""What the processes that we start inherit of our environment: variables on a list, so that no secret travels."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

_NAMES = frozenset(
    (
        # who we are, and where programs and files are
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH"),
        *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LANG", "LANGUAGE", "TZ", "NO_COLOR", "DO_NOT_TRACK"),
        # the way to a server, and whom to trust
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        # what git needs for a source, PostgreSQL's client for a ledger
        *("SSH_AUTH_SOCK", "SSH_ASKPASS", "GNUPGHOME", "KRB5CCNAME", "KRB5_CONFIG", "PGPASSFILE", "PGSERVICE"),
        *("PGSERVICEFILE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"),
        # by which whoever started something finds it again
        *("DEPLOY_DEMO_RUN", "ASHAT_TEST_RUN"),
    )
)
_FAMILIES = re.compile(r"LC_[A-Z]+|GIT_(SSH|ASKPASS|SSL_|PROXY_|CONFIG_GLOBAL|CONFIG_SYSTEM|CONFIG_NOSYSTEM).*")
_SECRET = re.compile(r"ASHAT_(.*_)?(TOKEN|PASSPHRASE)")


def inherited(more: Collection[str] = ()) -> dict[str, str]:
    """Return what a process of ours inherits of this one's environment: the usual variables, and those named in `more`.

    Of `PYTHONPATH` it gets what stays the same wherever it stands.
    """
    kept = {
        name: value for name, value in os.environ.items() if name in _NAMES or name in more or _FAMILIES.fullmatch(name)
    }
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    return kept | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def never_travels(name: str) -> bool:
    """Tell whether the variable `name` holds a token or a passphrase of ours, which one command reads and no other."""
    return _SECRET.fullmatch(name) is not None
