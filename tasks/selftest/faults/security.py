"""Seeded faults: secrets, what a release is built from, exposure, and TLS.

No credential below is one: they are put together at run time, so that none is found in this repository. The packages
and their vulnerabilities are invented, too; `osv/` beside this file is a database of them.
"""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID

from tasks.checks.kit.base import CheckContext, Outcome
from tasks.selftest.faults.base import Around, SeededFault, added, faulty
from tasks.selftest.faults.certificates import make_identity
from tasks.selftest.faults.tls_proxy import tls_in_front_of, trusting

OSV = Path(__file__).resolve().parent / "osv"
AWS_KEY = "AKIA" + "J3ZP" + "QK7W" + "2LMX" + "6TVB"
_GITHUB_TOKEN = "ghp_" + "".join(("9fQ2", "xLm7", "VbT4", "cKz8", "WnR5", "dHy1", "JsP6", "gEu3", "aXo0"))
_PRIVATE_KEY = (
    "-----BEGIN "
    + "RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy\n-----END "
    + "RSA PRIVATE KEY-----\n"
)
_DOTNET = {"libraries": {"Ashat.SelfTest.Serializer/4.0.0.1": {"type": "package", "serviceable": True}}}
_NPM = {"lockfileVersion": 3, "packages": {"": {}, "node_modules/@ashat-selftest/router": {"version": "2.3.0"}}}


def _offline(context: CheckContext) -> nullcontext[CheckContext]:
    """Look vulnerabilities up in the database of invented ones."""
    policy = context.policy.model_copy(update={"advisories": "file", "osv_file": str(OSV)})
    return nullcontext(replace(context, policy=policy))


def _out_of_reach(context: CheckContext) -> nullcontext[CheckContext]:
    """Look vulnerabilities up where nobody answers."""
    policy = context.policy.model_copy(update={"advisories": "osv", "osv_url": "http://127.0.0.1:9"})
    return nullcontext(replace(context, policy=policy))


def over_tls(
    *,
    trusted: bool = True,
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ciphers: str = "",
    **options: Any,
) -> Around:
    """Put the program behind a server that speaks TLS, with a certificate that `make_identity` makes of `options`.

    Its authority is `trusted`, so that what is wrong is wrong with the certificate alone, or with the protocols,
    from the `oldest` to the `newest`, or `ciphers`.
    """

    @contextmanager
    def around(context: CheckContext) -> Iterator[CheckContext]:
        with tempfile.TemporaryDirectory(prefix="ashat-tls-") as directory:
            identity = make_identity(Path(directory), **options)
            with tls_in_front_of(context.app_url, identity, oldest=oldest, newest=newest, ciphers=ciphers) as url:
                yield replace(context, app_url=url, tls=trusting(identity.authority) if trusted else None)

    return around


def _vulnerable(name: str, says: str, path: str, content: str) -> SeededFault:
    return replace(added(name, says, path, content), around=_offline)


def _badly_certified(name: str, says: str, expects: Outcome = "fail", **options: Any) -> SeededFault:
    return SeededFault(name, "security", says, lambda _: None, around=over_tls(**options), expects=expects)


def _new_executable(tree: Path) -> None:
    file = tree / "Modules" / "Market" / "catalogue.json"
    file.chmod(0o755)


FAULTS: tuple[SeededFault, ...] = (
    added("an AWS key", r"aws\.txt, line 2: AWS Access Key", "Modules/Market/aws.txt", f"id:\n{AWS_KEY}\n"),
    added("a GitHub token", r"deploy\.sh, line 1: GitHub Token", "deploy.sh", f"TOKEN={_GITHUB_TOKEN}\n"),
    added("a private key", r"server\.pem, line 1: Private Key", "Modules/Core/server.pem", _PRIVATE_KEY),
    added("an environment file", r"\.env is in the bundle", ".env", "COLOUR=blue\n"),
    _vulnerable(
        "a vulnerable Python package",
        r"ashat-selftest-markdown 1\.2\.2 .* SELFTEST-2026-1 \(CVSS 9\.8\).*; fixed in 1\.2\.3",
        "Modules/Forum/requirements.txt",
        "ashat-selftest-markdown==1.2.2\n",
    ),
    _vulnerable(
        "a vulnerable .NET package",
        r"Ashat\.SelfTest\.Serializer 4\.0\.0\.1 .* SELFTEST-2026-2 \(high\).*; fixed in 4\.0\.0\.2",
        "RaOS.deps.json",
        json.dumps(_DOTNET),
    ),
    _vulnerable(
        "a vulnerable npm package",
        r"@ashat-selftest/router 2\.3\.0 .* SELFTEST-2026-3 \(CVSS 9\.3\).*; fixed in 2\.3\.1",
        "web/package-lock.json",
        json.dumps(_NPM),
    ),
    faulty("security", r"the header X-Frame-Options is missing at /health", "no-header=X-Frame-Options"),
    faulty("security", r"the cookie session at /api/core/status lacks HttpOnly", "cookie=/api/core/status"),
    faulty("security", r"anyone can read /raos\.toml", "exposed"),
    faulty("security", r"/static/ lists a directory", "listing=/static/"),
    faulty("security", r"/api/forum/boards shows a credential: AWS Access Key", "leak=/api/forum/boards"),
    _badly_certified(
        "an expired certificate", r"the certificate of .* expired on", ends=datetime.now(UTC) - timedelta(1)
    ),
    _badly_certified(
        "a certificate for another name",
        r"is for elsewhere\.example, not for 127\.0\.0\.1",
        names=["elsewhere.example"],
    ),
    _badly_certified("a certificate of an authority that nobody knows", r"is not trusted \(", trusted=False),
    _badly_certified(
        "a certificate with a short key",
        r"has an RSA key of 1024 bits, which can be broken",
        rsa_bits=1024,
        ciphers="DEFAULT:@SECLEVEL=0",
    ),
    _badly_certified(
        "a certificate for clients",
        r"is made for clientAuth, not for a server",
        purposes=[ExtendedKeyUsageOID.CLIENT_AUTH],
    ),
    _badly_certified("a certificate without names", r"names no host, only the common name", names=[]),
    _badly_certified(
        "ciphers that encrypt nothing",
        r"takes ciphers with no encryption \(NULL\)",
        ciphers="ECDHE:eNULL:!aNULL:@SECLEVEL=0",
    ),
    _badly_certified(
        "a certificate that ends soon",
        r"expires on .*, in \d days: renew it",
        "warn",
        ends=datetime.now(UTC) + timedelta(5),
    ),
    _badly_certified(
        "old TLS besides",
        r"still takes TLS 1\.0 and TLS 1\.1",
        "warn",
        oldest=ssl.TLSVersion.TLSv1,
    ),
    _badly_certified(
        "old TLS only",
        r"speaks nothing newer than TLS 1\.1",
        oldest=ssl.TLSVersion.TLSv1,
        newest=ssl.TLSVersion.TLSv1_1,
    ),
    faulty("security", r"anyone can read /\.git/config", "serves=/.git/config"),
    faulty("security", r"anyone can read /\.git/HEAD", "serves=/.git/HEAD"),
    faulty("security", r"anyone can read /\.env", "serves=/.env"),
    faulty("security", r"raos\.py is 4755 on the server", "loose-mode=raos.py@4755"),
    faulty("security", r"raos\.py is 0646 on the server: anybody there can change", "loose-mode=raos.py@646"),
    SeededFault(
        "a program that was none before",
        "security",
        r"Modules/Market/catalogue\.json is executable and was not before",
        _new_executable,
        against_before=True,
        expects="warn",
    ),
    replace(
        added(
            "advisories out of reach",
            r"known vulnerabilities of 1 package could not be looked up: http://127\.0\.0\.1:9",
            "requirements.txt",
            "ashat-selftest-markdown==1.2.2\n",
        ),
        around=_out_of_reach,
        expects="inconclusive",
    ),
)
