"""Merkle trees over a list that only grows, as RFC 9162, section 2.1, defines them (the same tree as RFC 6962's).

SHA-256; a leaf is hashed behind the byte 0x00, an inner node behind 0x01, so that neither can be passed off as the
other. The tree of n leaves splits at the largest power of two below n. Everything here works on leaf hashes
(`leaf_hash(data)`), 32 bytes each; indexes begin at 0. Pure, no I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash a leaf that holds `data`."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """All that has to be kept of a tree to go on appending: the roots of its full subtrees, the largest first.

    A tree of n leaves has as many as n has bits set, so an append and the root cost O(log n).

    Raises:
        ValueError: `nodes` are not the frontier of a tree of `size` leaves.
    """

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)
        whole = all(len(node) == HASH_BYTES for node in self.nodes)
        if size < 0 or len(self.nodes) != size.bit_count() or not whole:
            raise ValueError(f"no tree of {size} leaves has this frontier")

    @classmethod
    def parse(cls, size: int, text: str) -> CompactRange:
        """Parse the `text` of a tree of `size` leaves.

        Raises:
            ValueError: it is no such tree.
        """
        return cls(size, [bytes.fromhex(node) for node in text.split()])

    @property
    def text(self) -> str:
        """Its nodes in hexadecimal, with spaces between."""
        return " ".join(node.hex() for node in self.nodes)

    def append(self, leaf: bytes) -> None:
        """Add the leaf of that hash after all others."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.nodes.pop(), node)
            size >>= 1
        self.nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Compute the root of the tree as it is now."""
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1]
        for node in reversed(self.nodes[:-1]):
            root = node_hash(node, root)
        return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Compute the root of the tree over these leaf hashes: `MTH` of RFC 9162, section 2.1.1."""
    frontier = CompactRange()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Prove where the leaf at `index` stands: `PATH` of RFC 9162, section 2.1.3.1.

    Raises:
        ValueError: there is no leaf at `index`.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves has none at {index}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_of(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split])]


def inclusion_holds(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether `proof` shows the leaf hash `leaf` at `index` of the tree of `size` leaves that has `root`.

    RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    here, last, seen = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if here & 1 or here == last:
            seen = node_hash(node, seen)
            here, last = _up_to_odd(here, last)
        else:
            seen = node_hash(seen, node)
        here, last = here >> 1, last >> 1
    return last == 0 and seen == root


def consistency_proof(leaves: Sequence[bytes], earlier: int) -> list[bytes]:
    """Prove that the tree of the first `earlier` leaves is a beginning of this one.

    `PROOF` of RFC 9162, section 2.1.4.1; empty where `earlier` is 0 or all of them.

    Raises:
        ValueError: the tree has fewer than `earlier` leaves.
    """
    if not 0 <= earlier <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves never was one of {earlier}")
    return _subproof(leaves, earlier, whole=True) if earlier else []


def consistency_holds(earlier: int, size: int, proof: Sequence[bytes], earlier_root: bytes, root: bytes) -> bool:
    """Tell whether `proof` shows that the tree of `size` leaves with `root` begins with that of `earlier` leaves.

    RFC 9162, section 2.1.4.2. Every tree begins with the empty one, and each with itself.
    """
    if not 0 <= earlier <= size:
        return False
    if earlier == 0:
        return not proof and earlier_root == EMPTY_ROOT and (size > 0 or root == EMPTY_ROOT)
    if earlier == size:
        return not proof and earlier_root == root
    path = [earlier_root, *proof] if earlier.bit_count() == 1 else list(proof)
    if not proof:
        return False
    here, last = _while_odd(earlier - 1, size - 1)
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            before, after = node_hash(node, before), node_hash(node, after)
            here, last = _up_to_odd(here, last)
        else:
            after = node_hash(after, node)
        here, last = here >> 1, last >> 1
    return last == 0 and before == earlier_root and after == root


def _split(size: int) -> int:
    """Find the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _subproof(leaves: Sequence[bytes], earlier: int, *, whole: bool) -> list[bytes]:
    if earlier == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = _split(len(leaves))
    if earlier <= split:
        return [*_subproof(leaves[:split], earlier, whole=whole), root_of(leaves[split:])]
    return [*_subproof(leaves[split:], earlier - split, whole=False), root_of(leaves[:split])]


def _while_odd(here: int, last: int) -> tuple[int, int]:
    """Shift both for as long as the first is odd."""
    while here & 1:
        here, last = here >> 1, last >> 1
    return here, last


def _up_to_odd(here: int, last: int) -> tuple[int, int]:
    """Shift both until the first is odd or zero."""
    while here and not here & 1:
        here, last = here >> 1, last >> 1
    return here, last
