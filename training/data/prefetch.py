"""Items that a thread makes ready while the earlier ones are at work."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
END = object()


def ahead(items: Iterable[Item], most: int = 2) -> Iterator[Item]:
    """In their order; what goes wrong with one is raised in its place."""
    items = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, END) for _ in range(most))
        while (item := coming.popleft().result()) is not END:
            coming.append(thread.submit(next, items, END))
            yield item
