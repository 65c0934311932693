"""The cheapest cut between a source and a sink (Dinic's algorithm), for graphs of a few thousand edges."""

from __future__ import annotations

from collections import deque

ENDLESS = 1 << 62


class Network:
    """Nodes are numbers from ``node``; 0 is the source, 1 the sink."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]
        self._to: list[int] = []
        self._room: list[int] = []

    def node(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, a: int, b: int, cost: int) -> None:
        """Pay ``cost`` if ``a`` is on the source's side and ``b`` on the sink's."""
        if cost <= 0:
            return
        self._edges[a].append(len(self._to))
        self._to.append(b)
        self._room.append(cost)
        self._edges[b].append(len(self._to))
        self._to.append(a)
        self._room.append(0)

    def cut(self) -> tuple[int, list[bool]]:
        """The cost, and for each node whether it is on the source's side. Of equal cuts the one with the fewest."""
        total = 0
        while True:
            level = self._levels()
            if level[1] < 0:
                return total, [depth >= 0 for depth in level]
            at = [0] * len(self._edges)
            while pushed := self._push(level, at):
                total += pushed

    def _levels(self) -> list[int]:
        level = [-1] * len(self._edges)
        level[0] = 0
        queue = deque([0])
        while queue:
            node = queue.popleft()
            for edge in self._edges[node]:
                to = self._to[edge]
                if self._room[edge] > 0 and level[to] < 0:
                    level[to] = level[node] + 1
                    queue.append(to)
        return level

    def _push(self, level: list[int], at: list[int]) -> int:
        """Along one path of the level graph, without recursion."""
        path: list[int] = []
        node = 0
        while node != 1:
            edges = self._edges[node]
            while at[node] < len(edges):
                edge = edges[at[node]]
                to = self._to[edge]
                if self._room[edge] > 0 and level[to] == level[node] + 1:
                    break
                at[node] += 1
            if at[node] == len(edges):
                if not path:
                    return 0
                edge = path.pop()
                node = self._to[edge ^ 1]
                at[node] += 1
                continue
            path.append(edges[at[node]])
            node = self._to[path[-1]]
        amount = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= amount
            self._room[edge ^ 1] += amount
        return amount
