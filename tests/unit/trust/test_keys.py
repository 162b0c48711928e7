"""Keys as files, release documents as bytes, thresholds as people."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.files import create_file
from ashat.errors import (
    KeyFileError,
    KeyPolicyError,
    MalformedMetadataError,
    MixAndMatchError,
    UnsignedError,
    UsageError,
)
from ashat.trust.authority.authority import Authority
from ashat.trust.authority.key_change import Change
from ashat.trust.keys.files import (
    OnlinePublicKeys,
    create_key,
    given_passphrase,
    load_public_key,
    load_signer,
    name_of,
)
from ashat.trust.tuf.metadata import (
    TARGET_FIELD,
    Holders,
    Lifetimes,
    Roles,
    build_production,
    build_root,
    build_targets,
    check_holders,
    parse,
    sign,
    signatures_of,
    target_of,
    verify,
)
from ashat.trust.tuf.release_document import ReleaseDocument, target_path
from tests.support.builders.trust_world import World, document, held_by, key_pair

PASSPHRASE = "five words are long enough"
NOW = datetime.now(UTC)


def test_a_key_with_a_passphrase_signs_what_its_public_half_verifies(tmp_path: Path) -> None:
    path = tmp_path / "kim.pem"
    made = create_key(path, "kim", PASSPHRASE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    public = load_public_key(tmp_path / "kim.pub", "kim")
    assert public == made
    assert name_of(public) == "kim"
    signer = load_signer(path, lambda: PASSPHRASE)
    public.verify_signature(signer.sign(b"these bytes"), b"these bytes")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kim.pem", "kim.pub"]


def test_other_tools_open_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "kim.pem"
    create_key(path, "kim", PASSPHRASE)
    told = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-passin", "stdin", "-pubout"],
        input=PASSPHRASE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == (tmp_path / "kim.pub").read_text()


@pytest.mark.parametrize("taken", ["kim.pem", "kim.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(KeyFileError, match="is there already"):
        create_key(tmp_path / "kim.pem", "kim", None)
    assert (tmp_path / taken).read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == [taken]
    with pytest.raises(FileExistsError):
        create_file(tmp_path / taken, b"new")
    assert [file.name for file in tmp_path.iterdir()] == [taken]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kim.pem"
    create_key(path, "kim", None)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"Others can read .* chmod 600"):
        load_signer(path)


def test_a_passphrase_that_is_wrong_missing_or_short_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "kim.pem"
    with pytest.raises(KeyFileError, match="is short: give 16 characters"):
        create_key(path, "kim", "short")
    create_key(path, "kim", PASSPHRASE)
    with pytest.raises(KeyFileError, match=r"is not opened by that passphrase; nothing was signed\."):
        load_signer(path, lambda: "not these words at all")
    with pytest.raises(KeyFileError, match="give it in ASHAT_KEY_PASSPHRASE"):
        load_signer(path)


def test_a_passphrase_comes_from_a_closed_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASHAT_KEY_PASSPHRASE", raising=False)
    assert given_passphrase(None) is None
    monkeypatch.setenv("ASHAT_KEY_PASSPHRASE", "from the environment")
    assert given_passphrase(None) == "from the environment"
    file = tmp_path / "passphrase"
    create_file(file, b"from the file\n")
    assert given_passphrase(file) == "from the file"
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="Others can read"):
        given_passphrase(file)
    file.chmod(0o600)
    file.write_bytes(b"\n")
    with pytest.raises(KeyFileError, match="holds no passphrase"):
        given_passphrase(file)
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        given_passphrase(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", b"x" * 99999], ids=len)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    create_file(tmp_path / "kim.pem", content)
    with pytest.raises(KeyFileError):
        load_signer(tmp_path / "kim.pem")
    with pytest.raises(KeyFileError):
        load_public_key(tmp_path / "kim.pem", "kim")


def test_keys_of_other_kinds_and_private_ones_are_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP521R1())
    create_file(tmp_path / "a.pem", other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    create_file(tmp_path / "a.pub", other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="no Ed25519 key"):
        load_signer(tmp_path / "a.pem")
    with pytest.raises(KeyFileError, match="no public key in PEM that can approve"):
        load_public_key(tmp_path / "a.pub", "a")
    create_key(tmp_path / "kim.pem", "kim", None)
    with pytest.raises(KeyFileError, match="holds a private key"):
        load_public_key(tmp_path / "kim.pem", "kim")
    with pytest.raises(KeyFileError, match="cannot name a key"):
        load_public_key(tmp_path / "kim.pub", "Kim X")
    with pytest.raises(KeyPolicyError, match="neither an Ed25519 key"):
        check_holders("production", [SSlibKey.from_crypto(other.public_key())], 1)


def test_a_release_document_has_one_spelling() -> None:
    made = document(7, provenance="c" * 64)
    content = made.to_bytes()
    assert ReleaseDocument.from_bytes(content) == made
    assert made.path == "production/stable/release.json"
    wrong = {
        b"canonical spelling": content + b"\n",
        b"valid integer": content.replace(b'"attempt":1', b'"attempt":"1"'),
        b"attempt: ": content.replace(b'"attempt":1', b'"attempt":0'),
        b"Extra inputs": content.replace(b'"format":1', b'"format":1,"more":1'),
        b"format: ": content.replace(b'"format":1', b'"format":2'),
        b"bundle: ": content.replace(b"0000000007", b"000000000G"),
        b"a time is written": content.replace(b'Z"', b'+00:00"'),
        b"Invalid JSON": b"{",
        b"at most 65536 bytes": b" " * 70_000,
    }
    for told, bad in wrong.items():
        with pytest.raises(MalformedMetadataError) as error:
            ReleaseDocument.from_bytes(bad)
        assert told.decode() in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("channel", ["", "Stable", "../up", "a/b", "a\n", "-a", "x" * 64])
def test_a_channel_is_a_plain_name(channel: str) -> None:
    with pytest.raises(UsageError, match="is no channel"):
        target_path(channel)


def _trust(approvers: list[CryptoSigner], threshold: int) -> tuple[CryptoSigner, Root, Targets]:
    root = key_pair("ruth")
    holders = Holders([root.public_key])
    roles = held_by(Holders([a.public_key for a in approvers], threshold), root=holders, targets=holders)
    made = build_root(roles, lifetime=999, now=NOW)
    return root, made.signed, build_targets(roles, lifetime=999, now=NOW).signed


def test_who_signed_and_who_is_missing_is_known_by_name() -> None:
    kim, lee, noa = approvers = [key_pair(name) for name in ("kim", "lee", "noa")]
    _, _, targets = _trust(approvers, 2)
    made = build_production(None, document(1), lifetime=999, now=NOW)
    assert signatures_of(targets, "production", made).missing == ("kim", "lee", "noa")
    assert sign(targets, "production", made, lee).signed == ("lee",)
    with pytest.raises(UnsignedError, match=r"version 1 is signed by 1 of 2 needed \(lee\); missing: kim, noa"):
        verify(targets, "production", made)
    with pytest.raises(UnsignedError, match="lee has signed production version 1 already"):
        sign(targets, "production", made, lee)
    with pytest.raises(UnsignedError, match="may not sign production: that is for kim, lee, noa"):
        sign(targets, "production", made, key_pair("kim"))
    # On its way from one approver to the next it is a file, and stays one that the first has signed.
    again = parse(made.to_bytes(), Targets, "it")
    found = sign(targets, "production", again, noa)
    assert found.complete
    assert (found.signed, found.missing, found.wanted) == (("lee", "noa"), ("kim",), 0)
    assert verify(targets, "production", again) == found
    again.signed.version = 2
    assert signatures_of(targets, "production", again).signed == ()
    assert kim.public_key.keyid not in again.signatures


def test_thresholds_mean_that_many_people() -> None:
    kim, lee = key_pair("kim"), key_pair("lee")
    twice = SSlibKey("other-id", "ed25519", "ed25519", {"public": kim.public_key.keyval["public"].upper()})
    keys = [kim.public_key, lee.public_key]
    check_holders("production", keys, 2)
    for threshold in (0, 3):
        with pytest.raises(KeyPolicyError, match="the threshold is 1 to 2"):
            check_holders("production", keys, threshold)
    with pytest.raises(KeyPolicyError, match="one and the same key"):
        check_holders("production", [*keys, twice], 2)
    with pytest.raises(KeyPolicyError, match="two keys are called kim"):
        check_holders("production", [*keys, key_pair("kim").public_key], 2)
    with pytest.raises(KeyPolicyError, match="one and the same"):
        build_targets(held_by(Holders([kim.public_key, twice], 2)), lifetime=9, now=NOW)
    with pytest.raises(KeyPolicyError, match="0 keys"):
        build_targets(held_by(Holders([], 1)), lifetime=9, now=NOW)


def test_an_approval_ends_with_its_document_and_keeps_other_channels() -> None:
    first = build_production(None, document(1, channel="beta"), lifetime=99 * 86400, now=NOW)
    made = document(2)
    second = build_production(first, made, lifetime=99 * 86400, now=NOW)
    assert second.signed.version == 2
    assert second.signed.expires == made.expires
    assert sorted(second.signed.targets) == ["production/beta/release.json", made.path]
    assert second.signed.targets[made.path].length == len(made.to_bytes())
    assert build_production(second, None, lifetime=60, now=NOW).signed.targets == second.signed.targets


def test_metadata_of_the_wrong_kind_is_told_apart() -> None:
    _, root, _ = _trust([key_pair("kim")], 1)
    production = build_production(None, document(1), lifetime=999, now=NOW)
    with pytest.raises(MalformedMetadataError, match="kind targets, not root"):
        parse(production.to_bytes(), Root, "The root")
    with pytest.raises(MalformedMetadataError, match="no TUF metadata"):
        parse(b"[" * 100_000, Targets, "It")
    with pytest.raises(MalformedMetadataError, match="no complete role production"):
        signatures_of(root, "production", production)


def test_a_trust_root_says_of_which_omega_it_is(tmp_path: Path) -> None:
    keys = World(tmp_path / "repository").online
    online = OnlinePublicKeys(keys.snapshot.public_key, keys.timestamp.public_key)  # type: ignore[arg-type]
    held = Authority(tmp_path, "omega-eu").init((), 1, online=online, now=NOW)
    assert (target_of(held.root.signed), target_of(held.targets.signed)) == ("omega-eu", "omega-eu")
    held.targets.signed.unrecognized_fields[TARGET_FIELD] = 7
    with pytest.raises(MalformedMetadataError, match="no name in x-ashat-target"):
        target_of(held.targets.signed)


def test_a_change_stays_with_its_omega_and_says_which_it_is_where_that_was_not_said(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    state = world.repository.read()

    def following(root: Metadata[Root], targets: Metadata[Targets], target: str) -> Change:
        roles = Roles.of(root.signed, targets.signed)
        return Change.plan(root, targets, None, roles, lifetimes=Lifetimes(), now=NOW, target=target)

    first = following(state.root, state.targets, "omega")
    first.check(state.root.signed, state.targets.signed)
    said = "both say from then on that they are of omega, and of no other OMEGA"
    assert said in first.differences(state.root.signed, state.targets.signed)
    second = Change.from_bytes(following(first.root, first.targets, "elsewhere").to_bytes())
    second.check(first.root.signed, first.targets.signed)
    assert (target_of(second.root.signed), target_of(second.targets.signed)) == ("omega", "omega")
    assert len(second.differences(first.root.signed, first.targets.signed)) == 1, "only until when they hold"
    second.targets.signed.unrecognized_fields[TARGET_FIELD] = "omega-eu"
    with pytest.raises(MixAndMatchError, match=r"another OMEGA \(omega, omega-eu\)"):
        second.check(first.root.signed, first.targets.signed)
    second.root.signed.unrecognized_fields[TARGET_FIELD] = "omega-eu"
    with pytest.raises(MixAndMatchError, match=r"another OMEGA \(omega-eu\)"):
        second.check(first.root.signed, first.targets.signed)
    for part in (second.root.signed, second.targets.signed):
        del part.unrecognized_fields[TARGET_FIELD]
    with pytest.raises(MixAndMatchError, match=r"another OMEGA \(none\)"):
        second.check(first.root.signed, first.targets.signed)
