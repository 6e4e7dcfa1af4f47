"""`Recent`: a few results that are likely to be asked for again soon, as while a page loads."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_FEW = 128  # because they tell which people were here


class Recent(dict[K, V], Generic[K, V]):
    """A dict that is emptied when it is full, so it never holds more than a few results."""

    __slots__ = ()

    def keep(self, key: K, value: V) -> V:
        """Keeps a value; returns it."""
        if len(self) >= _FEW:
            self.clear()
        self[key] = value
        return value
