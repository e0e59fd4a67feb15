"""A map that never changes under a reader: setting a key makes a new map that shares all but one path with the old one.

It is what gives the in-memory Inventory its snapshots. A hash trie of 32 branches a level with small dicts as leaves
(Bagwell, "Ideal Hash Trees", 2001). The nodes that one owner made may be changed in place by the same owner, so that a
transaction pays for copying a path once. Iteration has no meaningful order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_BITS: Final = 5
_MASK: Final = (1 << _BITS) - 1
_LEAF_SIZE: Final = 24
# Keys whose hashes agree in so many bits share one leaf, however large it grows.
_DEEPEST: Final = 60


class _Leaf(Generic[K, V]):
    __slots__ = ("entries", "owner")

    def __init__(self, owner: object, entries: dict[K, V]) -> None:
        self.owner = owner
        self.entries = entries


class _Branch(Generic[K, V]):
    __slots__ = ("children", "owner")

    def __init__(self, owner: object, children: list[_Leaf[K, V] | _Branch[K, V] | None]) -> None:
        self.owner = owner
        self.children = children


_Node = _Leaf[K, V] | _Branch[K, V]


class PersistentMap(Generic[K, V]):
    """An immutable map. `owner` is a token of whoever changes it: only what was made with it is overwritten."""

    __slots__ = ("_root", "_size")

    def __init__(self, root: _Node[K, V] | None = None, size: int = 0) -> None:
        self._root = root
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: K) -> bool:
        leaf = self._leaf(key)
        return leaf is not None and key in leaf.entries

    def __iter__(self) -> Iterator[K]:
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, _Branch):
                waiting.extend(node.children)
            elif node is not None:
                yield from tuple(node.entries)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value of `key`, or `default`."""
        leaf = self._leaf(key)
        return default if leaf is None else leaf.entries.get(key, default)

    def _leaf(self, key: K) -> _Leaf[K, V] | None:
        node, path = self._root, hash(key)
        while isinstance(node, _Branch):
            node = node.children[path & _MASK]
            path >>= _BITS
        return node

    def set(self, key: K, value: V, owner: object) -> PersistentMap[K, V]:
        """Return a map in which `key` has `value`."""
        size = self._size if key in self else self._size + 1
        return PersistentMap(_set(self._root, 0, key, value, owner), size)

    def remove(self, key: K, owner: object) -> PersistentMap[K, V]:
        """Return a map without `key`, which must be there."""
        assert self._root is not None
        return PersistentMap(_remove(self._root, hash(key), key, owner), self._size - 1)


def _set(node: _Node[K, V] | None, depth: int, key: K, value: V, owner: object) -> _Node[K, V]:
    if node is None:
        return _Leaf(owner, {key: value})
    if isinstance(node, _Leaf):
        if node.owner is not owner:
            node = _Leaf(owner, dict(node.entries))
        node.entries[key] = value
        return node if len(node.entries) <= _LEAF_SIZE or depth >= _DEEPEST else _split(node, depth, owner)
    if node.owner is not owner:
        node = _Branch(owner, list(node.children))
    place = (hash(key) >> depth) & _MASK
    node.children[place] = _set(node.children[place], depth + _BITS, key, value, owner)
    return node


def _split(leaf: _Leaf[K, V], depth: int, owner: object) -> _Branch[K, V]:
    children: list[_Leaf[K, V] | _Branch[K, V] | None] = [None] * (_MASK + 1)
    for key, value in leaf.entries.items():
        place = (hash(key) >> depth) & _MASK
        children[place] = _set(children[place], depth + _BITS, key, value, owner)
    return _Branch(owner, children)


def _remove(node: _Node[K, V], path: int, key: K, owner: object) -> _Node[K, V]:
    if isinstance(node, _Leaf):
        if node.owner is not owner:
            node = _Leaf(owner, dict(node.entries))
        del node.entries[key]
        return node
    if node.owner is not owner:
        node = _Branch(owner, list(node.children))
    child = node.children[path & _MASK]
    assert child is not None
    node.children[path & _MASK] = _remove(child, path >> _BITS, key, owner)
    return node
