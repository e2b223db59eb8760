"""The largest set of people without relatives among them.

Related pairs are the edges of a graph. In each connected component of up to 24 people an independent set of most
people is found exactly (branching on the person with most relatives), and of those sets the one of largest weight;
of larger components the person with most remaining relatives leaves (of equals the one of lower weight, then the
later one) until its pieces are small enough. The result depends on nothing but its arguments.

References
----------
Manichaikul et al. (2010), 10.1093/bioinformatics/btq559; Fomin & Kratsch (2010), Exact Exponential Algorithms, 2.3.
"""

from functools import cache
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import Bool, Int64

__all__ = ["EXACT_NODES", "unrelated_people"]

EXACT_NODES = 24
"""Components of so many people are solved exactly."""
_CUTS = 50
"""A larger component is searched for its pieces again when this fraction of its people has left."""


def unrelated_people(
    n_samples: int,
    first: Int64[np.ndarray, " pairs"],
    second: Int64[np.ndarray, " pairs"],
    weight: Int64[np.ndarray, " samples"] | None = None,
) -> Bool[np.ndarray, " samples"]:
    """Return who stays so that none of the pairs has both its people.

    Parameters
    ----------
    first, second
        Rows of the people of each related pair.
    weight
        Whom to keep rather: among sets of equally many people the sum decides, then the order. None: all alike.

    Examples
    --------
    >>> unrelated_people(4, np.array([0, 1]), np.array([1, 2])).tolist()
    [True, False, True, True]
    """
    importance = np.zeros(n_samples, dtype=np.int64) if weight is None else weight
    relatives: dict[int, set[int]] = {}
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        relatives.setdefault(a, set()).add(b)
        relatives.setdefault(b, set()).add(a)
    stays = np.ones(n_samples, dtype=bool)
    todo = _components(set(relatives), relatives)
    while todo:
        people = todo.pop()
        if len(people) <= EXACT_NODES:
            kept = _exact(sorted(people), relatives, importance)
            stays[[p for p in people if p not in kept]] = False
            continue
        leavers = _busiest(people, relatives, importance, max(1, len(people) // _CUTS))
        stays[leavers] = False
        todo.extend(_components(people.difference(leavers), relatives))
    return stays


def _busiest(
    people: set[int], relatives: dict[int, set[int]], weight: Int64[np.ndarray, " samples"], count: int
) -> list[int]:
    """Return those who leave, one after the other, always the one with most relatives left."""
    degree = {p: len(relatives[p] & people) for p in people}
    queue = [(-degree[p], int(weight[p]), -p) for p in people]
    heapify(queue)
    leavers: list[int] = []
    while len(leavers) < count:
        known, _, negative = heappop(queue)
        person = -negative
        if person not in degree or degree[person] != -known:
            continue  # outdated: it stands in the queue again with its present degree
        if not known:
            break
        leavers.append(person)
        del degree[person]
        for relative in relatives[person] & degree.keys():
            degree[relative] -= 1
            heappush(queue, (-degree[relative], int(weight[relative]), -relative))
    return leavers


def _components(people: set[int], relatives: dict[int, set[int]]) -> list[set[int]]:
    """Return the connected components of some people."""
    left, found = set(people), []
    while left:
        component, frontier = set(), {min(left)}
        while frontier:
            component |= frontier
            frontier = set().union(*(relatives[p] for p in frontier)) & left - component
        left -= component
        found.append(component)
    return found


def _exact(people: list[int], relatives: dict[int, set[int]], weight: Int64[np.ndarray, " samples"]) -> set[int]:
    """Return the independent set of most people, then of largest weight, then of the first people."""
    place = {p: k for k, p in enumerate(people)}
    edges = [sum(1 << place[q] for q in relatives[p] if q in place) for p in people]
    heavy = [int(weight[p]) for p in people]

    @cache
    def best(left: int) -> tuple[int, int, int]:
        """Return people, weight and members of the best set; members with the first person as the highest bit."""
        count, total, members, busiest, most = 0, 0, 0, -1, 0
        for k in range(len(people)):
            if left >> k & 1:
                degree = (edges[k] & left).bit_count()
                if not degree:
                    count, total, members, left = count + 1, total + heavy[k], members | _bit(k), left & ~(1 << k)
                elif degree > most:
                    busiest, most = k, degree
        if busiest < 0:
            return count, total, members
        without = best(left & ~(1 << busiest))
        within = best(left & ~edges[busiest] & ~(1 << busiest))
        within = (within[0] + 1, within[1] + heavy[busiest], within[2] | _bit(busiest))
        chosen = max(without, within)
        return count + chosen[0], total + chosen[1], members | chosen[2]

    def _bit(k: int) -> int:
        return 1 << len(people) - 1 - k

    members = best((1 << len(people)) - 1)[2]
    return {p for k, p in enumerate(people) if members & _bit(k)}
