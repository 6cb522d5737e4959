"""The rules of the house as functions: each takes the code as parsed modules and returns complaints, one line each.

A complaint says where, what, and what to do about it. The tables that the rules read stand in tests/test_house.py.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, where it is, its text and its syntax tree."""

    name: str
    path: str
    text: str
    tree: ast.Module


@dataclass(frozen=True)
class Import:
    """One imported module, or name in a module: `target` is dotted. `typing_only` where it is under TYPE_CHECKING."""

    target: str
    line: int
    typing_only: bool


def parse(path: str, text: str) -> Module:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Module(name, path, text, ast.parse(text))


def read(root: Path, *packages: str) -> list[Module]:
    """Parse every Python file of these folders."""
    files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return [parse(str(path.relative_to(root)), path.read_text(encoding="utf-8")) for path in files]


def imports(module: Module) -> list[Import]:
    """List what a file imports anywhere in it, functions included. `from a import b` is told as `a.b`."""
    typing_only = {
        id(node)
        for block in ast.walk(module.tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{module.name}." if node.level else ""  # relative imports are forbidden by ruff (TID252)
            found += [
                Import(f"{base}{node.module}.{alias.name}", node.lineno, id(node) in typing_only)
                for alias in node.names
            ]
    return found


def part_of(name: str, parts: Mapping[str, object] | Sequence[str]) -> str | None:
    """Return the part a dotted name belongs to, such as `notifyd.hub` for `notifyd.hub.outbox.Outbox`."""
    pieces = name.split(".")
    candidates = (".".join(pieces[:length]) for length in range(len(pieces), 0, -1))
    return next((candidate for candidate in candidates if candidate in parts), None)


def floor_complaints(
    modules: Sequence[Module], floors: Mapping[str, int], side_doors: Mapping[str, Sequence[str]], front: Sequence[str]
) -> list[str]:
    """Imports that lead above one's own floor, into a side door, or out of one."""
    complaints = []
    known = {**floors, **dict.fromkeys(side_doors, 0)}
    for module in modules:
        own = part_of(module.name, known)
        if own is None and module.name not in front:
            complaints.append(
                f"{module.path}: {module.name} stands on no floor: give it one in FLOORS, tests/test_house.py"
            )
            continue
        for used in imports(module):
            other = part_of(used.target, known)
            if other and other != own and (why := _why_not(own, other, floors, side_doors)):
                complaints.append(f"{module.path}:{used.line}: imports {used.target}, but {why}")
    return complaints


def _why_not(
    own: str | None, other: str, floors: Mapping[str, int], side_doors: Mapping[str, Sequence[str]]
) -> str | None:
    if own is None:
        return "a package's front page imports no part of it"
    if own in side_doors:
        allowed = side_doors[own]
        return None if other in allowed else f"{own} is a side door: it imports only {', '.join(allowed)}"
    if other in side_doors:
        top = max(floors.values())
        return None if floors[own] == top else f"{other} is a side door, used from floor {top} only"
    if floors[other] > floors[own]:
        return f"{own} is on floor {floors[own]} and {other} above it, on floor {floors[other]}"
    return None


def circle_complaints(modules: Sequence[Module]) -> list[str]:
    """Modules that import each other in a circle when they run."""
    names = [module.name for module in modules]
    graph = {
        module.name: {
            target
            for used in imports(module)
            if not used.typing_only and (target := part_of(used.target, names)) and target != module.name
        }
        for module in modules
    }
    done: set[str] = set()
    circles: list[str] = []

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append(" -> ".join([*way[way.index(name) :], name]) + ": a circle; move what both need below both")
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*way, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return circles


def banned_import_complaints(
    modules: Sequence[Module], banned: Mapping[str, str], allowed: Mapping[str, Sequence[str]]
) -> list[str]:
    """Imports of what is banned (a dotted name to its reason), but for the files that are allowed it."""
    complaints = []
    for module in modules:
        for used in imports(module):
            what = part_of(used.target, banned)
            if what and module.path not in allowed.get(what, ()):
                complaints.append(f"{module.path}:{used.line}: imports {used.target}: {banned[what]}")
    return complaints


def foreign_import_complaints(modules: Sequence[Module], allowed: Sequence[str], standard: frozenset[str]) -> list[str]:
    """Imports from outside the standard library and `allowed`."""
    what = f"only the standard library and {', '.join(allowed)} are used here"
    return [
        f"{module.path}:{used.line}: imports {used.target}; {what}"
        for module in modules
        for used in imports(module)
        if used.target.split(".")[0] not in {*allowed, *standard}
    ]


def functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Yield every function of a file with its qualified name, nested ones too."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                if isinstance(child, Function):
                    yield f"{prefix}{child.name}", child
                yield from below(child, f"{prefix}{child.name}.")
            else:
                yield from below(child, prefix)

    return below(module.tree, "")


def lines_of(function: Function) -> int:
    """Return how many lines a function takes, docstring included, decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def size_complaints(modules: Sequence[Module], file_lines: int, function_lines: int) -> list[str]:
    """Files and functions that are too long."""
    complaints = []
    for module in modules:
        count = len(module.text.splitlines())
        if count > file_lines:
            complaints.append(f"{module.path}: {count} lines, at most {file_lines}: split it along what it knows")
        complaints += [
            f"{module.path}:{function.lineno}: {name} takes {lines_of(function)} lines, at most {function_lines}"
            for name, function in functions(module)
            if lines_of(function) > function_lines
        ]
    return complaints


def docstring_complaints(modules: Sequence[Module]) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    complaints = []
    for module in modules:
        if not ast.get_docstring(module.tree):
            complaints.append(f"{module.path}: no docstring: say in one line what this file is for")
        complaints += [
            f"{module.path}:{node.lineno}: {name} is public and has no docstring"
            for name, node in _public(module.tree, "")
            if not ast.get_docstring(node)
        ]
    return complaints


def _public(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in scope.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        marks = {
            part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in node.decorator_list
        }
        if not marks & {"overload", "setter"}:
            yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from _public(node, f"{prefix}{node.name}.")


def home_complaints(modules: Sequence[Module], shared: Sequence[str]) -> list[str]:
    """Public top-level names that are defined in more than one module. `shared` are names that many may have."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in sorted(_defined(module.tree)):
            homes[name].append(module.path)
    return [
        f"{name} is defined in {' and '.join(paths)}: give it one home and import it, or name each after its difference"
        for name, paths in sorted(homes.items())
        if len(paths) > 1 and name not in shared
    ]


def _defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def name_complaints(paths: Sequence[str], banned: Sequence[str]) -> list[str]:
    """Files and folders named after nothing."""
    return [
        f"{path}: {piece!r} says nothing of what is inside: name it after what it holds"
        for path in paths
        for piece in Path(path).with_suffix("").parts
        if piece.removeprefix("test_") in banned
    ]


def skip_complaints(modules: Sequence[Module]) -> list[str]:
    """Tests that are skipped, or expected to fail, without a reason."""
    marks = ("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.skip", "pytest.xfail")
    complaints = []
    for module in modules:
        calls = {id(node.func): node for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
        marked = (
            node for node in ast.walk(module.tree) if isinstance(node, ast.Attribute) and ast.unparse(node) in marks
        )
        complaints += [
            f"{module.path}:{node.lineno}: {ast.unparse(node)} without a reason: say why, and until when"
            for node in marked
            if not _gives_reason(calls.get(id(node)))
        ]
    return complaints


def _gives_reason(call: ast.Call | None) -> bool:
    if call is None:
        return False
    takes_it_first = ast.unparse(call.func).rpartition(".")[2] == "skip" or ast.unparse(call.func) == "pytest.xfail"
    return bool(call.args and takes_it_first) or any(keyword.arg == "reason" for keyword in call.keywords)
