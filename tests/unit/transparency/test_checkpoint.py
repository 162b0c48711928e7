"""Checkpoints and their signatures against published examples and the rules of the C2SP formats."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ashat.errors import CheckpointError
from ashat.transparency.checkpoint import (
    Checkpoint,
    Signer,
    Verifier,
    is_key_name,
    open_checkpoint,
    open_note,
    origin_of,
)

# From the documentation of golang.org/x/mod/sumdb/note: a key pair, and what it makes of a text.
SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
# From https://c2sp.org/signed-note.
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The checksum database of Go on 2024-09-23, and the key that every Go toolchain carries.
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_CHECKPOINT = (
    "go.sum database tree\n30055305\nmXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=\n\n"
    "— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=\n"
)
PETER = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(SEED))
LOG = Signer("ashat-deploy/ledger-1", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
CHECKPOINT = Checkpoint("ashat-deploy/ledger-1", 12, sha256(b"root").digest())
NOTE = LOG.sign(CHECKPOINT.text)


def test_a_signature_is_byte_for_byte_the_published_one() -> None:
    assert PETER.verifier.vkey == VKEY
    assert PETER.sign(TEXT) == f"{TEXT}\n{SIGNED}"
    assert open_note(f"{TEXT}\n{SIGNED}", [Verifier.parse(VKEY)]) == TEXT
    assert open_note(FOO_NOTE, [Verifier.parse(FOO)]) == "This is an example message.\n"


def test_a_checkpoint_of_a_public_log_is_read() -> None:
    found = open_checkpoint(GO_CHECKPOINT, [Verifier.parse(GO)])
    assert (found.origin, found.size) == ("go.sum database tree", 30055305)
    assert base64.b64encode(found.root) == b"mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM="
    assert found.text + GO_CHECKPOINT[GO_CHECKPOINT.index("\n\n") + 1 :] == GO_CHECKPOINT


def test_what_is_written_is_read_back() -> None:
    assert open_checkpoint(NOTE, [LOG.verifier]) == CHECKPOINT
    assert origin_of(NOTE) == CHECKPOINT.origin
    assert Verifier.parse(f" {LOG.verifier.vkey}\n") == LOG.verifier
    assert Checkpoint.parse(Checkpoint("o", 0, bytes(32), ("more",)).text) == Checkpoint("o", 0, bytes(32), ("more",))


@pytest.mark.parametrize("bit", range(0, 8 * len(NOTE.encode()), 5))
def test_a_checkpoint_with_a_bit_flipped_is_refused(bit: int) -> None:
    changed = bytearray(NOTE.encode())
    changed[bit // 8] ^= 1 << bit % 8
    try:
        note = changed.decode()
    except UnicodeDecodeError:
        return
    with pytest.raises(CheckpointError) as told:
        open_checkpoint(note, [LOG.verifier])
    assert "\n" not in str(told.value)


def test_signatures_of_others_are_ignored_and_false_ones_of_ours_are_not() -> None:
    both = NOTE + PETER.sign(CHECKPOINT.text).rpartition("\n\n")[2]
    assert open_checkpoint(both, [LOG.verifier]) == open_checkpoint(both, [PETER.verifier]) == CHECKPOINT
    false = NOTE + PETER.sign("Another text\n").rpartition("\n\n")[2]
    assert open_checkpoint(false, [LOG.verifier]) == CHECKPOINT
    with pytest.raises(CheckpointError, match="signature of PeterNeumann is false"):
        open_checkpoint(false, [LOG.verifier, PETER.verifier])


def test_another_key_under_the_same_name_is_another_key() -> None:
    stranger = Signer(LOG.name, Ed25519PrivateKey.generate())
    with pytest.raises(CheckpointError, match=r"is signed by ashat-deploy/ledger-1\+\w{8}, not by ashat-deploy"):
        open_checkpoint(stranger.sign(CHECKPOINT.text), [LOG.verifier])
    with pytest.raises(CheckpointError, match="a key that is known"):
        open_checkpoint(NOTE, [])
    forged = NOTE.replace(NOTE.split()[-1], base64.b64encode(LOG.verifier.key_id + bytes(64)).decode())
    with pytest.raises(CheckpointError, match="is false"):
        open_checkpoint(forged, [LOG.verifier])


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "o\n1\n", "o\n1\nROOT", "\n1\nROOT\n", "o\n\n1\nROOT\n", "o\n01\nROOT\n", "o\n+1\nROOT\n",
        "o\n-1\nROOT\n", "o\n1.0\nROOT\n", "o\n１\nROOT\n", "o\n 1\nROOT\n", "o\n1\nROOT\n\n", "o\n1\nAAAA\n",
        "o\n1\nnot base64!\n", "o\n1\nBENT\n", "o\n1\nBARE\n", f"o\n{10**19}\nROOT\n",
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    root = base64.b64encode(bytes(32)).decode()
    told = text.replace("ROOT", root).replace("BENT", f"{root[:-2]}B=").replace("BARE", root[:-1])
    with pytest.raises(CheckpointError, match="this is none"):
        Checkpoint.parse(told)


@pytest.mark.parametrize(
    "note",
    [
        "", "o\n1\n", TEXT, f"{TEXT}{SIGNED}", f"{TEXT}\n{SIGNED[:-1]}", f"{TEXT}\n{SIGNED}\n",
        f"{TEXT}\n{SIGNED.replace('— ', '- ')}", f"{TEXT}\n{SIGNED.replace('— ', '')}",
        f"{TEXT}\n{SIGNED.replace('Neumann', '+Neumann')}", f"{TEXT}\n{SIGNED.replace('=', '')}",
        f"{TEXT}\n— PeterNeumann x08goQ==\n", f"{TEXT}\n—  {SIGNED[15:]}", f"a\tb\n\n{SIGNED}", f"a\x00b\n\n{SIGNED}",
        f"\ud800\n\n{SIGNED}", f"{'x' * 1_000_001}\n\n{SIGNED}",
    ],
)  # fmt: skip
def test_what_is_no_signed_note_is_refused(note: str) -> None:
    with pytest.raises(CheckpointError) as told:
        open_note(note, [Verifier.parse(VKEY)])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "vkey",
    [
        "", "a+b", VKEY[:-4], VKEY.replace("c74f20a3", "c74f20a4"), VKEY.replace("Peter", "Paul"), f"+{VKEY[13:]}",
        VKEY.replace("PeterNeumann", "Peter Neumann"), VKEY.replace("+ARpc", "+ZRpc"), f"{VKEY}AAAA",
        # The id fits, the type of the key is another.
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)  # fmt: skip
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(CheckpointError) as told:
        Verifier.parse(vkey)
    assert "\n" not in str(told.value)


def test_names_and_texts_that_no_note_may_hold_are_not_signed() -> None:
    assert is_key_name("example.com/log42")
    assert not any(map(is_key_name, ("", "a b", "a+b", "a\u3000b", "a\nb", "a\x01b")))
    for signer, text in ((LOG, "no end"), (LOG, "a\tb\n"), (Signer("a b", LOG.key), "text\n")):
        with pytest.raises(ValueError, match="a note"):
            signer.sign(text)


def test_a_text_may_hold_empty_lines() -> None:
    text = "Ognuno sta solo\n\ned è subito sera.\n"
    assert open_note(PETER.sign(text), [PETER.verifier]) == text
