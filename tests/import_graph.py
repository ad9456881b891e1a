"""The import graph of our own modules, drawn from the files: rooms, the longest chain, circles.

usage: python -m tests.import_graph [checkout]     prints rooms with what they import, the longest chain and circles
"""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.launch import CHECKOUT

PACKAGES = ("bert_lamb", "data_prep")
Edges = dict[str, set[str]]  # module -> modules of ours that it imports, inside functions too


def files(checkout: Path = CHECKOUT) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (checkout / package).rglob("*.py"))


def edges(checkout: Path = CHECKOUT) -> Edges:
    """Every module's imports; `from package import name` is an import of package.name where that is a module."""
    names = {path: ".".join(path.relative_to(checkout).with_suffix("").parts) for path in files(checkout)}
    modules = {name.removesuffix(".__init__") for name in names.values()}
    found: Edges = {}
    for path, name in names.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names} & modules
                imported |= below or {node.module}
        own = name.removesuffix(".__init__")
        found[own] = (imported & modules) - {own}
    return found


def circles(graph: Edges) -> list[list[str]]:
    """Groups of modules that import each other in a circle (strongly connected components of two or more; Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = []
            while not component or component[-1] != module:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def longest_chain(graph: Edges) -> list[str]:
    """The longest chain of imports; modules in a circle end a chain where it would come back."""
    best: dict[str, list[str]] = {}

    def chain(module: str, above: frozenset[str]) -> list[str]:
        if module not in best:
            below = [chain(other, above | {module}) for other in graph[module] if other not in above]
            best[module] = [module, *max(below, key=len, default=[])]
        return best[module]

    return max((chain(module, frozenset()) for module in sorted(graph)), key=len)


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def rooms(graph: Edges) -> Edges:
    found: Edges = {}
    for module, imported in graph.items():
        found.setdefault(room_of(module), set()).update(room_of(other) for other in imported)
    return {room: others - {room} for room, others in sorted(found.items())}


def show(items: Iterable[str]) -> str:
    return ", ".join(sorted(item.removeprefix("bert_lamb.") for item in items)) or "nothing of ours"


def main(checkout: Path) -> None:
    graph = edges(checkout)
    of_rooms = rooms(graph)
    for room, others in of_rooms.items():
        print(f"{room.removeprefix('bert_lamb.'):<24} {show(others)}")
    for name, each in (("modules", graph), ("rooms", of_rooms)):
        found = longest_chain(each)
        print(f"longest chain of {name}: {len(found)}: {' > '.join(m.removeprefix('bert_lamb.') for m in found)}")
        print(f"circles of {name}: {circles(each) or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT)
