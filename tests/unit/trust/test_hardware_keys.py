"""An approver's key on a PKCS#11 token: SoftHSM stands in for a YubiKey, over the same interface."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SSlibKey

from ashat.cli.main import run
from ashat.errors import KeyFileError, KeyPolicyError, UnsignedError
from ashat.trust.keys.files import load_public_key, public_key
from ashat.trust.keys.hardware import create_reference, signer_in
from ashat.trust.release.proposal import Proposal, spell
from ashat.trust.tuf.metadata import check_holders
from ashat.trust.update_client.client import ReleaseClient
from tests.support.builders.trust_world import World, document, key_pair, mainframe, serving
from tests.support.needs import requires_softhsm, softhsm_library

pytestmark = pytest.mark.xdist_group("softhsm")

PIN = "648219"
URI = "hsm:2?label=kim"


@dataclass(frozen=True)
class Token:
    """A token with one key on it; `files` is a directory of its approver's."""

    files: Path

    @property
    def pin_file(self) -> Path:
        return self.files / "pin"


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A token called kim with a P-256 key under the number 2, where a YubiKey has the one for signing.

    The library reads its settings once a process.
    """
    library, directory = softhsm_library(), tmp_path_factory.mktemp("softhsm")
    assert library is not None
    (directory / "tokens").mkdir()
    settings = directory / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOFTHSM2_CONF", str(settings))
        patched.setenv("PYKCS11LIB", library)
        words = ["--init-token", "--free", "--label", "kim", "--pin", PIN, "--so-pin", "12345678"]
        subprocess.run(["softhsm2-util", *words], check=True, capture_output=True, timeout=60)
        _make_key(library)
        yield


@pytest.fixture
def token(softhsm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """The token, and an empty directory for what is kept of it."""
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    made = Token(tmp_path)
    made.pin_file.touch(mode=0o600)
    made.pin_file.write_text(f"{PIN}\n")
    return made


def _make_key(library: str) -> None:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    with pkcs11.lib(library).get_token(token_label="kim").open(rw=True, user_pin=PIN) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, id=b"\x02", label="kim")


@requires_softhsm
def test_a_key_on_a_token_signs_whatever_a_file_would(token: Token, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trust", "keygen", "kim", "--uri", URI, "--passphrase-file", str(token.pin_file)]) == 0
    reference = token.files / "home" / "trust" / "keys" / "kim.key"
    assert str(reference) in capsys.readouterr().out
    assert PIN not in reference.read_text()
    assert reference.stat().st_mode & 0o777 == 0o600
    kim, lee = signer_in(reference, lambda: PIN), key_pair("lee")
    key = load_public_key(reference.with_suffix(".pub"), "kim")
    assert (key.scheme, key.keyid) == ("ecdsa-sha2-nistp256", kim.public_key.keyid)

    world = World(token.files / "repository")
    _, targets = world.offline_with([key, lee.public_key])
    world.repository.install(world.online, targets=targets)
    proposal = Proposal.make(targets, None, (document(1), document(2)), lifetime=86400, now=datetime.now(UTC))
    signatures = [proposal.read(spell(proposal.sign(signer))) for signer in (kim, lee)]
    assert proposal.count(signatures).complete
    signed = proposal.signed_release(signatures)
    world.repository.publish(signed.production.encode(), signed.document.encode(), world.online)
    with serving(world.directory) as server, mainframe(server, world, token.files / "cache") as client:
        assert isinstance(client, ReleaseClient)
        assert client.latest_release("stable") == document(1, expires=proposal.release.document.expires)


@requires_softhsm
@pytest.mark.parametrize(
    ("uri", "pin", "telling"),
    [
        (URI, "000000", "cannot be used: PinIncorrect"),
        ("hsm:7?label=kim", PIN, "could not find ECDSA key"),
        ("hsm:2?label=lee", PIN, "No PKCS#11 token found for label lee"),
        ("hsm:two?label=kim", PIN, "invalid literal"),
        ("vault:kim", PIN, "is no key's address; it begins with one of hsm:, gcpkms:"),
        ("gcpkms:projects/p/key", PIN, "give it, in PEM, with --public FILE"),
    ],
)
def test_a_token_that_does_not_sign_is_one_line(token: Token, uri: str, pin: str, telling: str) -> None:
    path = token.files / "kim.key"
    with pytest.raises(KeyFileError) as refused:
        create_reference(path, "kim", uri, None, lambda: pin)
    assert telling in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not path.exists()
    assert not path.with_suffix(".pub").exists()


@requires_softhsm
def test_a_wrong_pin_at_signing_signs_nothing(token: Token) -> None:
    path = token.files / "kim.key"
    key = create_reference(path, "kim", URI, None, lambda: PIN)
    world = World(token.files / "repository")
    _, targets = world.offline_with([key, key_pair("lee").public_key])
    proposal = Proposal.make(targets, None, (document(1), None), lifetime=86400, now=datetime.now(UTC))
    with pytest.raises(UnsignedError, match=r"kim could not sign production: .*PinIncorrect"):
        proposal.sign(signer_in(path, lambda: "000000"))


@requires_softhsm
def test_a_public_half_that_is_anothers_is_refused(token: Token) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    public = token.files / "other.pem"
    public.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="cannot be used"):
        create_reference(token.files / "kim.key", "kim", URI, public, lambda: PIN)


def test_a_damaged_reference_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "kim.key"
    for content, telling in (
        ("{", "refers to no key as this version writes it"),
        ('{"format": "ashat-key-reference/9"}', "in a format of another version"),
        ('{"format": "ashat-key-reference/1", "public": "x", "uri": "hsm:"}', "refers to no key as this version"),
    ):
        path.touch(mode=0o600)
        path.write_text(content)
        with pytest.raises(KeyFileError, match=telling):
            signer_in(path, lambda: "")


def test_one_ecdsa_key_in_two_spellings_is_one_key() -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    first, second = public_key(pem, "kim"), public_key(pem, "lee")
    second.keyval["public"] = second.keyval["public"].strip()
    second.keyid = "0" * 64
    with pytest.raises(KeyPolicyError, match="kim and lee are one and the same key"):
        check_holders("production", [first, second], 2)
    check_holders("production", [first, SSlibKey.from_crypto(ed25519.Ed25519PrivateKey.generate().public_key())], 2)
