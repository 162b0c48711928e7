"""The Merkle tree against Certificate Transparency's reference vectors, and against its own definition."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.transparency import merkle as m

# The test data of the certificate-transparency project, which every implementation of RFC 6962 is held against.
LEAVES = [
    m.leaf_hash(bytes.fromhex(data))
    for data in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [
    (0, 1, []),
    (0, 8, [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]),
    (5, 8, [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (1, 5, [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]),
]  # fmt: skip
CONSISTENCY = [
    (1, 1, []),
    (1, 8, INCLUSION[1][2]),
    (6, 8, [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]),
    (2, 5, [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]),
    (6, 7, [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]),
]  # fmt: skip
LARGEST = 64
MANY = [m.leaf_hash(bytes([number])) for number in range(LARGEST)]
MANY_ROOTS = [m.root_of(MANY[:size]) for size in range(LARGEST + 1)]


def raw(proof: list[str]) -> list[bytes]:
    return [bytes.fromhex(node) for node in proof]


def defined_root(leaves: list[bytes]) -> bytes:
    """The recursion of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = max(1 << bit for bit in range(7) if 1 << bit < len(leaves))
    return sha256(b"\x01" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_reference_ones(size: int) -> None:
    assert m.root_of(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_the_reference_ones(index: int, size: int, proof: list[str]) -> None:
    root, leaf, path = bytes.fromhex(ROOTS[size]), LEAVES[index], raw(proof)
    assert m.inclusion_proof(LEAVES[:size], index) == path
    assert m.inclusion_holds(leaf, index, size, path, root)
    zero, other = bytes(32), m.leaf_hash(b"another")
    wrong = [
        (leaf, index - 1, size, path, root), (leaf, index + 1, size, path, root), (leaf, index ^ 2, size, path, root),
        (leaf, index, size * 2, path, root), (leaf, index, size // 2, path, root), (leaf, index, 0, path, root),
        (other, index, size, path, root), (leaf, index, size, path, m.EMPTY_ROOT), (leaf, index, size, path, zero),
        (leaf, index, size, [*path, zero], root), (leaf, index, size, [*path, root], root),
        (leaf, index, size, [zero, *path], root), (leaf, index, size, [root, *path], root),
        (leaf, index, -size, path, root), (leaf, size, size, path, root),
    ]  # fmt: skip
    if path:
        wrong.append((leaf, index, size, path[:-1], root))
    for number, case in enumerate(wrong):
        assert not m.inclusion_holds(*case), number


@pytest.mark.parametrize(("earlier", "size", "proof"), CONSISTENCY)
def test_consistency_proofs_are_the_reference_ones(earlier: int, size: int, proof: list[str]) -> None:
    old, new, path = bytes.fromhex(ROOTS[earlier]), bytes.fromhex(ROOTS[size]), raw(proof)
    assert m.consistency_proof(LEAVES[:size], earlier) == path
    assert m.consistency_holds(earlier, size, path, old, new)
    zero = bytes(32)
    wrong = [
        (earlier, size, path, zero, new), (earlier, size, path, old, zero), (size + 1, size, path, old, new),
        (-1, size, path, old, new), (earlier, size, [*path, zero], old, new), (earlier, size, [*path, old], old, new),
        (earlier, size, [zero, *path], old, new), (earlier, size, [old, *path], old, new),
    ]  # fmt: skip
    if path:
        wrong += [
            (earlier - 1, size, path, old, new), (earlier + 1, size, path, old, new),
            (earlier ^ 2, size, path, old, new), (earlier, size * 2, path, old, new),
            (earlier, size // 2, path, old, new), (earlier, size, path, new, old), (earlier, size, [], old, new),
            (earlier, size, path[:-1], old, new), (earlier, size, [path[0], *path], old, new),
        ]  # fmt: skip
    for number, case in enumerate(wrong):
        assert not m.consistency_holds(*case), number


def test_every_tree_begins_with_the_empty_one() -> None:
    for size in range(9):
        assert m.consistency_proof(LEAVES[:size], 0) == []
        assert m.consistency_holds(0, size, [], m.EMPTY_ROOT, bytes.fromhex(ROOTS[size]))
        assert not m.consistency_holds(0, size, [], bytes(32), bytes.fromhex(ROOTS[size]))
        assert not m.consistency_holds(0, size, [bytes(32)], m.EMPTY_ROOT, bytes.fromhex(ROOTS[size]))
    assert not m.consistency_holds(0, 0, [], m.EMPTY_ROOT, bytes(32))


def test_proofs_hold_for_every_pair_of_sizes() -> None:
    for size in range(LARGEST + 1):
        leaves = MANY[:size]
        assert MANY_ROOTS[size] == defined_root(leaves)
        for number in range(size + 1):
            path = m.consistency_proof(leaves, number)
            assert m.consistency_holds(number, size, path, MANY_ROOTS[number], MANY_ROOTS[size])
            if number < size:
                path = m.inclusion_proof(leaves, number)
                assert m.inclusion_holds(leaves[number], number, size, path, MANY_ROOTS[size])


@given(st.integers(1, LARGEST), st.data())
def test_an_inclusion_proof_with_any_bit_flipped_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    parts = [MANY[index], MANY_ROOTS[size], *m.inclusion_proof(MANY[:size], index)]
    leaf, root, *path = flipped(parts, data)
    assert not m.inclusion_holds(leaf, index, size, path, root)


@given(st.integers(1, LARGEST), st.data())
def test_a_consistency_proof_with_any_bit_flipped_is_refused(size: int, data: st.DataObject) -> None:
    earlier = data.draw(st.integers(1, size))
    parts = [MANY_ROOTS[earlier], MANY_ROOTS[size], *m.consistency_proof(MANY[:size], earlier)]
    old, new, *path = flipped(parts, data)
    assert not m.consistency_holds(earlier, size, path, old, new)


@given(st.integers(1, LARGEST), st.integers(1, LARGEST), st.integers(0, LARGEST), st.integers(0, LARGEST))
def test_a_consistency_proof_holds_for_its_own_sizes_only(a: int, b: int, claimed_a: int, claimed_b: int) -> None:
    earlier, size = sorted((a, b))
    path = m.consistency_proof(MANY[:size], earlier)
    held = m.consistency_holds(claimed_a, claimed_b, path, MANY_ROOTS[claimed_a], MANY_ROOTS[claimed_b])
    if held and path:
        assert m.consistency_proof(MANY[:claimed_b], claimed_a) == path


def flipped(parts: list[bytes], data: st.DataObject) -> list[bytes]:
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    return [*parts[:which], bytes(changed), *parts[which + 1 :]]


def test_a_frontier_goes_on_where_it_was_kept() -> None:
    kept = m.CompactRange()
    for size, leaf in enumerate(MANY):
        kept = m.CompactRange(kept.size, list(kept.nodes))
        assert (kept.size, kept.root()) == (size, MANY_ROOTS[size])
        assert len(kept.nodes) == size.bit_count()
        kept.append(leaf)
    assert kept.root() == MANY_ROOTS[LARGEST]


@pytest.mark.parametrize(("size", "nodes"), [(1, []), (2, [bytes(32)] * 2), (1, [b"short"]), (-1, [bytes(32)])])
def test_a_frontier_that_fits_no_tree_is_refused(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="frontier"):
        m.CompactRange(size, nodes)


@pytest.mark.parametrize("number", [-1, 9])
def test_proofs_of_what_is_not_there_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="8 leaves"):
        m.inclusion_proof(LEAVES, number)
    with pytest.raises(ValueError, match="8 leaves"):
        m.consistency_proof(LEAVES, number)
