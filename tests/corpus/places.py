"""Credentials that are known by their place or put together from pieces; and what tests, words and examples have."""

from __future__ import annotations

import base64
import json
import zlib

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.corpus.case import ALNUM, HEX, Case, dumped, fault, good, letters
from tests.corpus.hiding import NOISE
from tests.corpus.tokens import TOKENS

KIND = "places and pieces"
TOKEN = TOKENS["GitHub token"]
_PW = "Kv7" + letters("placed", 13)
_EC = derive_private_key(0xFACE_0FF5, SECP256R1())
_DER = _EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
_ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PAIR = bytes(range(32)) + _ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
_WORDS = "ripple anchor tunnel verb maple oxygen drift candle siren pilot walnut harbor"
_STATIC = "\n".join(letters(f"ov{number}", 32, HEX) for number in range(16))


def _random(seed: str, count: int) -> str:
    return base64.b64encode(letters(seed, count).encode()).decode()


def _png(chunk: bytes, data: bytes) -> bytes:
    head = b"\x89PNG\r\n\x1a\n" + len(b"\0" * 13).to_bytes(4, "big") + b"IHDR" + b"\0" * 17
    return head + len(data).to_bytes(4, "big") + chunk + data + b"\0" * 4


def _pdf(text: str) -> bytes:
    stream = zlib.compress(f"BT ({text}) Tj ET".encode())
    return b"%PDF-1.4\n1 0 obj<</Filter/FlateDecode>>stream\r\n" + stream + b"\r\nendstream\nendobj\n%%EOF"


FAULTS: dict[str, tuple[str, bytes | str]] = {
    "on the command line of sshpass": ("a.sh", f"sshpass -p '{_PW}' ssh root@10.0.0.4 uptime\n"),
    "on the command line of mysqldump": ("b.sh", f"mysqldump -u root -p{_PW} raos > /tmp/d.sql\n"),
    "on the command line of redis-cli": ("c.sh", f"redis-cli -h cache -a {_PW} ping\n"),
    "on the command line of openssl": ("d.sh", f"openssl rsa -in a.pem -passin pass:{_PW} -out b.pem\n"),
    "in a file of psql's by another name": ("conf/database", f"db.raos.net:5432:raos:raos:{_PW}\n"),
    "in a netrc by another name": ("conf/net.txt", f"machine api.raos.net login ci password {_PW}\n"),
    "in a sentence": ("notes.md", f"Until it is set up, the password is {_PW}, as Ann said.\n"),
    "in a recorded request": ("a.har", dumped([{"name": "Authorization", "value": f"Bearer {letters('har', 40)}"}])),
    "a name in one field and its value in the next": ("a.json", dumped([{"key": "db_password", "value": _PW}])),
    "in the environment of a container": ("a.yml", f"env:\n- name: DB_PASSWORD\n  value: {_PW}\n"),
    "in a column of an INSERT": (
        "a.sql",
        f"INSERT INTO mail (host, username, password) VALUES ('a.net', 'it''s', 'x'), ('b.net', 'ann', '{_PW}');\n",
    ),
    "in a column of a COPY": ("b.sql", f"COPY public.mail (id, api_key) FROM stdin;\n1\t{_PW}\n\\.\n"),
    "in two literals with a sign between": ("a.js", f"const t = '{TOKEN[:15]}' +\n  '{TOKEN[15:]}';\n"),
    "in two literals side by side": ("a.py", f'T = ("{TOKEN[:15]}"\n     "{TOKEN[15:]}")\n'),
    "in a mail": (
        "a.eml",
        f"Content-Transfer-Encoding: quoted-printable\n\nthe token is {TOKEN[:20]}=\n{TOKEN[20:]}\n",
    ),
    "in an address, all of it escaped": ("a.url", "/?a=" + "".join(f"%{each:02X}" for each in TOKEN.encode()) + "\n"),
    "in numbered entities": ("a.xml", "<t>" + "".join(f"&#{each};" for each in TOKEN.encode()) + "</t>\n"),
    "in hexadecimal with colons": ("a.txt", ":".join(f"{each:02x}" for each in TOKEN.encode()) + "\n"),
    "in a PDF": ("a.pdf", _pdf(TOKEN)),
    "in a picture's compressed text": ("a.png", _png(b"zTXt", b"Comment\0\0" + zlib.compress(TOKEN.encode()))),
    "a key in a program": ("fw.bin", NOISE + _DER + NOISE),
    "a key in bytes of C": ("a.h", "char k[] = {" + ", ".join(f"0x{each:02x}" for each in _DER) + "};\n"),
    "a key pair in numbers": ("id.json", json.dumps(list(_PAIR))),
    "a symmetric JSON Web Key": ("k.json", dumped({"kty": "oct", "k": letters("oct", 43), "alg": "HS256"})),
    "a static key of OpenVPN": (
        "ta.txt",
        f"-----BEGIN OpenVPN Static key V1-----\n{_STATIC}\n-----END OpenVPN Static key V1-----\n",
    ),
    "a keytab": ("svc.bin", b"\5\2\0\0\0\x45\0\1\0\x08RAOS.NET" + b"\0\3svc\0\0\0\1\0\0\0\0\0\x12\0\x20" + NOISE[:48]),
    "a Tor service's key": ("a.bin", b"== ed25519v1-secret: type0 ==\0\0\0" + NOISE[:64]),
    "an RSA key in XML": (
        "k.xml",
        f"<RSAKeyValue><Modulus>{_random('xm', 256)}</Modulus><D>{_random('xd', 256)}</D></RSAKeyValue>\n",
    ),
    "a wallet's key": ("hardhat.config.js", f"accounts: ['0x{letters('eth', 64, HEX)}']\n"),
    "a wallet's words": ("w.txt", f"mnemonic: {_WORDS}\n"),
    "a key of DNSSEC": ("K.txt", f"Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: {_random('dns', 33)}\n"),
    "Laravel's key": ("a.txt", f"APP_KEY=base64:{_random('app', 32)}\n"),
    "a real password in a file of tests": ("tests/test_a.py", f"login('ann', password='{_PW}')\n"),
}
_HASH = "pbkdf2_sha256$260000$abcdefgh$" + letters("hash", 43) + "="
GOOD: dict[str, tuple[str, bytes | str]] = {
    "the passwords of tests": (
        "tests/test_login.py",
        "create('bob', password='hunter2')\nassert login('bob', password='wrong-password1') == 401\n",
    ),
    "the hash of a fixture": ("tests/fixtures/users.json", dumped([{"fields": {"password": _HASH}}])),
    "a key that Stripe prints for tries": ("pay.md", "curl -u sk_test_4eC39" + "HqLyjWDarjtT1zdp7dc: https://api.stripe.com\n"),
    "words that BIP 39 prints": ("w.js", "mnemonic: 'test test test test test test test test test test test junk'\n"),
    "a page's key for searches": (
        "a.js",
        f"algolia: {{ appId: '{letters('id', 10)}', apiKey: '{letters('alg', 32, HEX)}', indexName: 'docs' }}\n",
    ),
    "Firebase's key for pages": (
        "b.js",
        f"initializeApp({{apiKey: 'x{letters('fb', 38)}', authDomain: 'raos.firebaseapp.com'}})\n",
    ),
    "translated words": ("en.json", dumped({"password": "Password?", "passwordForgotten": "Forgotten?"})),
    "a list of bad passwords": ("z.js", "var passwords='123456,password,qwerty1,abc123,letmein,dragon'.split(',');\n"),
    "code that writes keys": (
        "pem.py",
        "if line == '-----BEGIN PRIVATE" + " KEY-----':\n    b = b'-----BEGIN ' + name + b' PRIVATE" + " KEY-----'\n",
    ),
    "a key in documentation, cut short": (
        "a.md",
        "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEpAIBAAKCAQEA...\n-----END RSA PRIVATE" + " KEY-----\n",
    ),
    "columns of users": ("a.sql", "INSERT INTO t (name, password_min) VALUES ('a', '12');\nCOPY t (id, name) FROM stdin;\n"),
    "commands that ask for a password": ("a.sh", "mysql -u root -p raos < a.sql\nmysqldump --port 3306 -p$PW raos\n"),
    "a header from a variable": ("a.js", "fetch(u, {headers: {Authorization: `Bearer ${token}`}})\n// Authorization: Bearer <token>\n"),
    "names and values": ("a.html", f"<input name='csrf_token' value='{letters('cs', 64)}'><input name='password' value=''>\n"),
    "sentences about passwords": ("a.md", "The password is required. A password is case-sensitive. The password was changed_by_user.\n"),
    "literals side by side": ("a.py", "X = ('abcdefghijklmnopqrstuvwxyz'\n     'ABCDEFGHIJKLMNOPQRSTUVWXYZ' '0123456789')\n"),
    "a fingerprint": ("a.txt", "SHA256 Fingerprint=" + ":".join(letters(f"f{n}", 2, HEX) for n in range(32)) + "\n"),
    "a picture in a PDF": ("a.pdf", _pdf("a page about tokens and passwords")),
    "a list of ports": ("a.txt", "web.raos.net:8080:a:b:c\nhost:443:x:y:z\n"),
    "64 numbers": ("a.json", json.dumps([n * 3 % 256 for n in range(64)])),
    "a public key in a program": (
        "fw.bin",
        NOISE + _EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) + NOISE,
    ),
    "what is at one commit": ("requirements.txt", f"raos @ git+https://github.com/raos/raos@{letters('c', 40, HEX)}\n"),
    "what has a digest": (
        "requirements.txt",
        f"raos @ https://raos.net/raos-1-py3-none-any.whl#sha256={letters('d', 64, HEX)}\n",
    ),
}  # fmt: skip
CASES: tuple[Case, ...] = (
    *(fault(KIND, name, {path: content}) for name, (path, content) in FAULTS.items()),
    fault(KIND, "a Dropbox token", {"a.py": f"dropbox.Dropbox('sl.{letters('dbx', 138, ALNUM + '-_')}')\n"}),
    fault(KIND, "what is at a branch", {"requirements.txt": "raos @ git+https://github.com/raos/raos@main\n"}, "unpinned"),
    *(good(KIND, name, {path: content}) for name, (path, content) in GOOD.items()),
)  # fmt: skip
