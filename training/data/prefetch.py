"""Items that a thread makes ready while the earlier ones are at work."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], count: int = 2) -> Iterator[Item]:
    """Yields the items in their order, `count` of them ahead; an error of one is raised in its place."""
    source = iter(items)

    def take() -> list[Item]:
        return list(islice(source, 1))  # empty at the end

    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(take) for _ in range(count))
        while item := coming.popleft().result():
            coming.append(thread.submit(take))
            yield item[0]
