"""Packages that others published, as they came and changed since."""

from __future__ import annotations

import base64
import hashlib
import json

from tests.corpus.case import Case, fault, good, letters
from tests.corpus.tokens import TOKENS

KIND = "vendored packages"
_README = (
    "# A client\n\n    client = Client(password='s3cret-Horse-Staple', url='postgres://app:Tr0ub4dor3@db.raos.net/x')\n"
)
_CODE = "def connect(url):\n    return url\n"


def _site(files: dict[str, str], **changed: str) -> dict[str, bytes | str]:
    """Install a package of `files`, of which some were changed since, as pip does."""
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        rows.append(f"{path},sha256={digest},{len(text)}\n")
    rows.append("client-1.dist-info/RECORD,,\n")
    now = {
        **files,
        **{path: changed.get(path.rpartition("/")[2].replace(".", "_"), text) for path, text in files.items()},
    }
    tree: dict[str, bytes | str] = {f"lib/site-packages/{path}": text for path, text in now.items()}
    return {**tree, "lib/site-packages/client-1.dist-info/RECORD": "".join(rows)}


def _node(
    files: dict[str, str], item: dict[str, object], inner: dict[str, object] | None = None
) -> dict[str, bytes | str]:
    packages = {"node_modules/client": item, **({"node_modules/client/node_modules/inner": inner} if inner else {})}
    lock = {"lockfileVersion": 3, "packages": packages}
    tree: dict[str, bytes | str] = {f"node_modules/client/{path}": text for path, text in files.items()}
    return {**tree, "node_modules/.package-lock.json": json.dumps(lock)}


def _debian(path: str, text: str, now: str) -> dict[str, bytes | str]:
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return {f"root/{path}": now, "root/var/lib/dpkg/info/client.md5sums": f"{digest}  {path}\n"}


_PUBLISHED: dict[str, object] = {
    "version": "1.0.0",
    "resolved": "https://registry.npmjs.org/client/-/client-1.0.0.tgz",
    "integrity": "sha512-" + letters("i", 86) + "==",
}
_STOLEN = f"TOKEN = '{TOKENS['GitHub token']}'\n"
_FILES = {"client/__init__.py": _CODE, "client/readme.md": _README}

CASES: tuple[Case, ...] = (
    fault(
        KIND, "a token in a package, and in its list as it is", _site({**_FILES, "client/conf.py": _STOLEN}), "secret"
    ),
    fault(KIND, "a token in a file that was changed", _site(_FILES, __init___py=_STOLEN), "secret"),
    fault(KIND, "a file that was changed", _site(_FILES, __init___py=_CODE + "import evil\n"), "changed-package"),
    fault(
        KIND,
        "a password in a file that was changed",
        _site(_FILES, __init___py="password = 'Tr0ub4dor-and-3'\n"),
        "password",
    ),
    fault(
        KIND,
        "a password in a file that the list does not name",
        {**_site(_FILES), "lib/site-packages/client/local.py": "password = 'Tr0ub4dor-and-3'\n"},
        "password",
    ),
    fault(KIND, "a token in a package of npm", _node({"index.js": _STOLEN}, _PUBLISHED), "secret"),
    fault(
        KIND,
        "a password in a linked package of npm",
        _node({"index.js": "password = 'Tr0ub4dor-and-3'\n"}, {"link": True, "resolved": "packages/client"}),
        "password",
    ),
    fault(
        KIND,
        "a password in a package that npm's list does not name",
        {**_node({}, _PUBLISHED), "node_modules/other/a.js": "password = 'Tr0ub4dor-and-3'\n"},
        "password",
    ),
    fault(
        KIND,
        "a file of Debian's that was changed",
        _debian("usr/bin/client", _CODE, _CODE + "evil\n"),
        "changed-package",
    ),
    fault(KIND, "a token in a file of Debian's", _debian("usr/bin/client", _STOLEN, _STOLEN), "secret"),
    fault(
        KIND,
        "a list that cannot be read",
        {**_site(_FILES), "lib/site-packages/b-1.dist-info/RECORD": b"\xff\xfe\0"},
        "unreadable",
    ),
    good(KIND, "a package with an example in its documentation", _site(_FILES)),
    good(
        KIND,
        "a package with tests",
        _site({**_FILES, "client/tests.py": "client.login(username='a', password='Sw0rdf1sh-42')\n"}),
    ),
    good(KIND, "a package of npm with an example", _node({"README.md": _README}, _PUBLISHED)),
    good(
        KIND,
        "a package in a package of npm",
        _node({"node_modules/inner/README.md": _README}, _PUBLISHED, {"version": "1.0.0", "inBundle": True}),
    ),
    good(KIND, "a file of Debian's with an example", _debian("usr/share/doc/client/README", _README, _README)),
    good(
        KIND,
        "compiled files that no list names",
        {**_site(_FILES), "lib/site-packages/client/__pycache__/a.pyc": b"\xa7\r\r\n" + bytes(200)},
    ),
)
