"""Credentials in places where a search of text does not come: archives, encodings, binaries; and the same without one."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
import zlib

from backports import zstd

from tests.corpus.case import Case, fault, good, letters
from tests.corpus.tokens import TOKENS

KIND = "hiding places"
TOKEN = TOKENS["GitHub token"]
LINE = f"token = {TOKEN}\n"
_PW = "Tr0ub4" + "dor-" + letters("hidden", 8)
_ENV = f"DB_PASSWORD={_PW}\nCOLOUR=blue\n"
NOISE = random.Random(1).randbytes(4_000)
# A PEM key, put together, since a whole one in a repository looks like a leak.
PEM = (
    "-----BEGIN RSA PRIVATE"
    + " KEY-----\n"
    + "\n".join(["MIIEow" + letters("pem0", 58)] + [letters(f"pem{n}", 64) for n in range(8)])
    + "\n-----END RSA PRIVATE"
    + " KEY-----\n"
)


def zipped(files: dict[str, bytes | str], head: bytes = b"") -> bytes:
    """Make a zip archive, after `head`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return head + file.getvalue()


def tarred(files: dict[str, bytes | str], mode: str = "w") -> bytes:
    """Make a tar archive, compressed as `mode` says."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return file.getvalue()


def in_base64(text: str) -> str:
    """Encode a text in base64."""
    return base64.b64encode(text.encode()).decode()


def wrapped(text: str, width: int = 76) -> str:
    """Break a text into lines of `width` letters."""
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


_MINIFIED = "var a=1;" * 40_000
_NOTEBOOK = {"cells": [{"cell_type": "code", "source": ["import os\n", f'password = "{_PW}"\n']}]}
_SOURCE_MAP = {
    "version": 3,
    "sources": ["a.ts"],
    "sourcesContent": [f"// built\nexport const t = '{TOKEN}'\n"],
    "mappings": "AAAA",
}
FAULTS: dict[str, tuple[str, bytes | str]] = {
    "in a zip": ("a.zip", zipped({"conf/a.yml": LINE})),
    "in a jar": (
        "lib/app.jar",
        zipped({"META-INF/MANIFEST.MF": "x\n", "application.properties": f"spring.datasource.password={_PW}\n"}),
    ),
    "in a jar in a war": ("app.war", zipped({"WEB-INF/lib/a.jar": zipped({"a.properties": LINE})})),
    "in a wheel": ("dist/a-1-py3-none-any.whl", zipped({"a/settings.py": f'SECRET_KEY = "{letters("whl", 50)}"\n'})),
    "in a nupkg": ("a.nupkg", zipped({"content/appsettings.json": json.dumps({"Token": TOKEN})})),
    "in an office document": ("a.docx", zipped({"word/document.xml": f"<w:t>{TOKEN}</w:t>"})),
    "in a program with a zip behind it": ("tool.pyz", zipped({"__main__.py": LINE}, b"#!/usr/bin/env python3\n")),
    "in a zip without its name": ("data.bin", zipped({"x": LINE})),
    "an environment file in a zip": ("a.zip", zipped({".env": "COLOUR=blue\n"})),
    "in a tar": ("a.tar", tarred({"a/conf.ini": f"[db]\npassword = {_PW}\n"})),
    "in a tar.gz": ("a.tgz", tarred({"a/b": LINE}, "w:gz")),
    "in a tar.bz2": ("a.tbz", tarred({"a/b": LINE}, "w:bz2")),
    "in a tar.xz": ("a.txz", tarred({"a/b": LINE}, "w:xz")),
    "in gzip": ("dump.sql.gz", gzip.compress(LINE.encode())),
    "in the second member of gzip": ("a.gz", gzip.compress(b"nothing\n") + gzip.compress(LINE.encode())),
    "in bzip2": ("a.bz2", bz2.compress(LINE.encode())),
    "in xz": ("a.xz", lzma.compress(LINE.encode())),
    "in zstd": ("a.zst", zstd.compress(LINE.encode())),
    "in zlib": ("ab/cdef", zlib.compress(b"blob 60\0" + LINE.encode())),
    "in a tar.gz in a zip": ("a.zip", zipped({"b.tar.gz": tarred({"c": LINE}, "w:gz")})),
    "in UTF-16": ("a.reg", LINE.encode("utf-16")),
    "in UTF-16 without a mark": ("a.ini", ("[x]\r\n" + LINE).encode("utf-16-le")),
    "in UTF-16, big-endian": ("a.txt", ("[x]\r\n" + LINE).encode("utf-16-be")),
    "a password in UTF-16": ("a.ps1", f'$password = "{_PW}"\r\n'.encode("utf-16")),
    "in UTF-32": ("a.txt", LINE.encode("utf-32")),
    "in a binary": ("a.bin", NOISE + b"\0" + TOKEN.encode() + b"\0" + NOISE),
    "in a binary, wide letters": ("a.dll", NOISE + b"\0\0" + TOKEN.encode("utf-16-le") + b"\0\0" + NOISE),
    "a password in a binary": ("a.exe", NOISE + f"\0password={_PW}\0".encode() + NOISE),
    "in base64": ("a.yml", f"config: {in_base64(LINE)}\n"),
    "in base64 twice": ("a.yml", f"config: {in_base64(in_base64(LINE))}\n"),
    "in base64, in lines": ("a.pem.txt", wrapped(in_base64("# the settings of the program\n" + LINE * 3)) + "\n"),
    "in base64 of URLs": ("a.js", "const c = '" + base64.urlsafe_b64encode(LINE.encode()).decode() + "'\n"),
    "an environment file in base64": ("ci.yml", f"run: echo {in_base64(_ENV)} | base64 -d > .env\n"),
    "a key in base64": ("values.yaml", f"tls.key: {in_base64(PEM)}\n"),
    "in gzip in base64": ("a.txt", base64.b64encode(gzip.compress(LINE.encode())).decode() + "\n"),
    "in a zip in base64": ("a.tf", 'code = "' + base64.b64encode(zipped({"x.py": LINE})).decode() + '"\n'),
    "in hexadecimal": ("a.c", f'char *c = "{LINE.encode().hex()}";\n'),
    "in upper-case hexadecimal": ("a.sql", f"INSERT INTO b VALUES (X'{LINE.encode().hex().upper()}');\n"),
    "in bytes of C": ("a.h", "char c[] = {" + ", ".join(f"0x{each:02x}" for each in LINE.encode()) + "};\n"),
    "in bytes of JavaScript": ("a.js", "const c = [" + ",".join(str(each) for each in LINE.encode()) + "]\n"),
    "in escapes": ("a.js", "const c = '" + "".join(f"\\x{each:02x}" for each in TOKEN.encode()) + "'\n"),
    "in escapes of Unicode": ("a.json", '{"c": "' + "".join(f"\\u{each:04x}" for each in TOKEN.encode()) + '"}\n'),
    "at the end of a long line": ("a.min.js", _MINIFIED + f'b="{TOKEN}"'),
    "in the middle of a long line": ("a.min.js", _MINIFIED + f'b="{TOKEN}";' + _MINIFIED),
    "a password in a minified file": ("a.min.js", _MINIFIED + f'c={{password:"{_PW}"}};' + _MINIFIED),
    "at the end of a large file": ("a.log", "2026-01-01 nothing\n" * 120_000 + LINE),
    "in a source map": ("a.js.map", json.dumps(_SOURCE_MAP)),
    "in a notebook": ("a.ipynb", json.dumps(_NOTEBOOK)),
    "in JSON in JSON": ("a.json", json.dumps({"body": json.dumps({"password": _PW})})),
    "in an address's parameters": ("a.http", f"GET /callback?access_token={TOKEN}&x=1\n"),
    "in an attribute of HTML": ("a.html", f"<div data-config='{{&quot;password&quot;:&quot;{_PW}&quot;}}'></div>\n"),
    "a key in JSON": ("a.json", json.dumps({"key": PEM})),
    "a key on one line": ("a.yml", 'key: "' + PEM.replace("\n", "\\n") + '"\n'),
    "in a SQL dump": ("dump.sql", "INSERT INTO s VALUES (1,'a\\'b','" + TOKEN + "'),(2,'x','y');\n"),
    "in CSV": ("a.csv", f"id,name,value\n1,api_key,{TOKEN}\n"),
    "in a comment that asks not to look": (
        "a.py",
        f"t = '{TOKEN}'  # pragma: allowlist secret kingfisher:ignore gitleaks:allow\n",
    ),
    "in a file of tests": ("tests/test_a.py", f"TOKEN = '{TOKEN}'\n"),
    "in a lock file": ("package-lock.json", json.dumps({"lockfileVersion": 3, "packages": {}, "x": TOKEN})),
    "in a picture's text": ("a.svg", f"<svg><!-- {TOKEN} --></svg>\n"),
}
_DIGESTS = "".join(f"{letters(str(n), 64, '0123456789abcdef')}  {n}\n" for n in range(40))
_PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + NOISE).decode()
GOOD: dict[str, tuple[str, bytes | str]] = {
    "noise": ("a.bin", NOISE * 20),
    "noise in a zip": ("a.zip", zipped({"a.bin": NOISE, "b.txt": "nothing\n", "c.jar": zipped({"d.class": NOISE})})),
    "noise in gzip": ("a.gz", gzip.compress(NOISE)),
    "an empty zip": ("a.zip", zipped({})),
    "a picture in base64": ("a.css", f"a{{background:url(data:image/png;base64,{_PICTURE})}}\n"),
    "a text in base64": ("a.yml", f"readme: {in_base64('This is the documentation of a program. ' * 20)}\n"),
    "digests": ("sums.txt", _DIGESTS),
    "digests in a zip": ("a.zip", zipped({"sums.txt": _DIGESTS})),
    "UTF-16 without a credential": ("de.strings", '"password" = "Passwort";\n"token" = "Merkmal";\n'.encode("utf-16")),
    "a long line": ("a.min.js", _MINIFIED + 'b=this.password;c={token:"keyword.operator"}' + _MINIFIED),
    "a source map": (
        "a.js.map",
        json.dumps({"version": 3, "sourcesContent": ["const token = getToken()\n"], "mappings": "AAAA;" * 5_000}),
    ),
    "a notebook": (
        "a.ipynb",
        json.dumps({"cells": [{"source": ["password = getpass()\n"], "outputs": [{"data": {"image/png": _PICTURE}}]}]}),
    ),
    "a table of numbers": ("a.c", "int t[] = {" + ", ".join(str(n * n % 251) for n in range(500)) + "};\n"),
    "identifiers in hexadecimal": (
        "a.json",
        json.dumps({"ids": [letters(f"id{n}", 32, "0123456789abcdef") for n in range(50)]}),
    ),
    "a text that only begins as a gzip": ("a.txt", b"\x1f\x8b\x08 is how gzip begins\n"),
    "a signature": (
        "a.sig",
        "-----BEGIN PGP SIGNATURE-----\n\n" + wrapped(letters("sig", 400)) + "\n-----END PGP SIGNATURE-----\n",
    ),
}
CASES: tuple[Case, ...] = (
    *(fault(KIND, name, {path: content}) for name, (path, content) in FAULTS.items()),
    *(good(KIND, name, {path: content}) for name, (path, content) in GOOD.items()),
)
