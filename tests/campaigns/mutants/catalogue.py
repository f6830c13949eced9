"""Every mutant that is tried: which modules, which operators, and the names by which results are kept."""

from __future__ import annotations

import ast
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.campaigns.workbench import ROOT

TARGETS: Final = (
    "atoma/sync",
    "atoma/hub",
    "atoma/mutations",
    "stores/atoma_stores/sqlite",
    "stores/atoma_stores/sql/hub",
    "stores/atoma_stores/postgres",
    "stores/atoma_stores/local.py",
)
NOT_TRIED: Final = {
    "faults.py": "switches for the tests themselves",
    "_queries.py": "the read side",
    "_readers.py": "the read side",
    "compile.py": "the read side",
    "reads.py": "the read side",
}
"""Modules beside the targets that are not part of them, with the reason."""

OPERATORS: Final = (
    "AddNot",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_FloorDiv",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_BitOr_BitAnd",
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "NumberReplacer",
    "ZeroIterationForLoop",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
)
"""The operators of Cosmic Ray that stand for mistakes people make. ``DeleteStatement`` is added to them."""


BOUND_MIN: Final = 100
"""A constant of this size or more is a bound chosen by taste: one more or less of it is nobody's promise."""
FREE_CHOICES: Final = {
    "how often something is looked at or said": ("LOOK_S", "LOOK_ALONE_S", "QUIET_S", "BEAT_S", "EVERY_S", "SCAN_S"),
    "how long something is waited for before it is given up": (
        "CLOSE_S", "CLOSING_S", "CONNECT_S", "CALL_S", "INTERRUPTED_S", "LEAVE_S", "LEAVING_S", "LOOP_BUSY_MS", "LOOP_READ_S",
        "PURGE_S", "STALLED_S", "STUCK_TIMES", "VERIFY_S",
    ),
    "when something is tried again": ("AGAIN", "AGAIN_S", "BACKOFF", "INTERRUPT_AGAIN_S", "OPENING_RETRY_S", "READ_AGAIN_S", "RETRY_S"),
    "how much is done at a time": (
        "AHEAD", "APPLY_TARGET_S", "AT_ONCE", "BULK_ENTRIES", "BULK_INSERTS", "CHECKPOINT_EVERY_CALLS", "CLIENTS_AT_ONCE",
        "FIRST_ROWS", "FORGET_EVERY", "LONG_READERS_MAX", "MOVED_STEPS", "READERS_MAX", "SCOPES_AT_ONCE", "WAL_PAGES_FACTOR",
    ),
    "what a row is taken to weigh in an estimate": ("ROW_BYTES", "SLACK"),
}  # fmt: skip
"""Constants whose number serves as well when it is one more or less, by the reason. They are not changed by one.

A bound that people are told of is not among them: it is tested at its exact value.
"""


class DeleteStatement:
    """An operator that puts ``pass`` in the place of a call, an ``await`` or an assignment to an attribute or an item."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """The one place of ``node``, if it is such a statement."""
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        target = statement.children[0] if statement.type == "expr_stmt" else None
        stored = target is not None and target.type in ("atom_expr", "power")
        if statement.type in ("atom_expr", "power", "await_expr") or stored:
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The statement without what it does."""
        import parso  # pyright: ignore[reportMissingImports]

        parse: Any = parso.parse  # untyped; the check of types runs without it as well
        first = node.children[0].get_first_leaf()
        gone = parse("pass").children[0]
        gone.prefix = first.prefix
        node.children[0] = gone
        return node


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        module: Path of the module, relative to the checkout.
        function: Qualified name of the function around it; ``<module>`` for none.
        operator: What is done.
        occurrence: Which of the operator's places in the module.
        line: First line of the place.
        key: Name of the mutant that stays the same as long as the function does.
    """

    module: str
    function: str
    operator: str
    occurrence: int
    line: int
    key: str


def modules(root: Path = ROOT) -> list[str]:
    """The modules to try, as paths relative to ``root``."""
    found: list[Path] = []
    for target in TARGETS:
        place = root / target
        found += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [path.relative_to(root).as_posix() for path in found if path.name not in NOT_TRIED]


def mutants_of(module: str, root: Path = ROOT) -> list[Mutant]:
    """Every mutant of ``module``, in the order of its lines."""
    from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]

    source = (root / module).read_text(encoding="utf-8")
    spans = _Spans(source)
    nodes = list(ast_nodes(get_ast(source)))
    found: list[Mutant] = []
    for name, operator in operators().items():
        counts: dict[str, int] = defaultdict(int)
        positions = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(positions):
            if spans.is_inert(start):
                continue
            function, text = spans.function_at(start[0])
            counts[function] += 1
            if name == "NumberReplacer" and spans.is_free(start):
                continue
            identity = "\0".join((module, function, name, str(counts[function]), text))
            key = hashlib.sha256(identity.encode()).hexdigest()[:16]
            found.append(Mutant(module, function, name, occurrence, start[0], key))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.occurrence))


def operators() -> Mapping[str, Any]:
    """Each operator by its name."""
    from cosmic_ray.plugins import get_operator  # pyright: ignore[reportMissingImports]

    return {"DeleteStatement": DeleteStatement(), **{name: get_operator(f"core/{name}")() for name in OPERATORS}}


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The source of the mutant's module with the fault in it."""
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]

    source = (root / mutant.module).read_text(encoding="utf-8")
    code = mutate_code(source, operators()[mutant.operator], mutant.occurrence)
    if code is None:
        raise LookupError(f"{mutant.operator} has no place {mutant.occurrence} in {mutant.module}")
    return str(code)


def lines_of(mutant: Mutant, root: Path = ROOT) -> range:
    """The lines of the function around the mutant."""
    return _Spans((root / mutant.module).read_text(encoding="utf-8")).lines_at(mutant.line)


def line_of(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the mutant's line."""
    return (root / mutant.module).read_text(encoding="utf-8").splitlines()[mutant.line - 1]


def sample(population: Iterable[Mutant], size: int, seed: int) -> list[Mutant]:
    """``size`` of the mutants, drawn by ``seed``: from each module in proportion to what it has, and at least one."""
    strata: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in population:
        strata[mutant.module].append(mutant)
    total = sum(map(len, strata.values()))
    if size >= total:
        return [mutant for module in sorted(strata) for mutant in strata[module]]
    shares = {module: max(1, size * len(found) // total) for module, found in strata.items()}
    by_need = sorted(strata, key=lambda module: (size * len(strata[module]) / total - shares[module], module))
    while sum(shares.values()) < size:
        shares[by_need.pop()] += 1
    drawn = random.Random(seed)
    return [mutant for module in sorted(strata) for mutant in drawn.sample(strata[module], shares[module])]


class _Spans:
    """What stands where in a source: its functions, and the places in which a fault changes nothing that runs."""

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._functions: list[tuple[int, int, str]] = []
        self._heads: list[tuple[int, int]] = []
        self._inert: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._free: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._walk(ast.parse(source), "")

    def function_at(self, line: int) -> tuple[str, str]:
        """Name and source of the innermost function around ``line``."""
        start, end, name = self._innermost(line)
        return name, "".join(self._lines[start - 1 : end])

    def lines_at(self, line: int) -> range:
        """The lines of the innermost function around ``line``."""
        start, end, _ = self._innermost(line)
        return range(start, end + 1)

    def _innermost(self, line: int) -> tuple[int, int, str]:
        return max((span for span in self._functions if span[0] <= line <= span[1]), default=(line, line, "<module>"))

    def is_inert(self, place: tuple[int, int]) -> bool:
        """Whether ``place`` is an annotation, the ``*`` of a signature, a Protocol, or what only type checkers read."""
        line, column = place
        marker = self._lines[line - 1][column : column + 2] == "*," and any(
            first <= line <= last for first, last in self._heads
        )
        return marker or any(start <= place < end for start, end in self._inert)

    def is_free(self, place: tuple[int, int]) -> bool:
        """Whether ``place`` is in one of the ``FREE_CHOICES``."""
        return any(start <= place < end for start, end in self._free)

    def _walk(self, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}."
                if not isinstance(child, ast.ClassDef):
                    self._functions.append((child.lineno, child.end_lineno or child.lineno, name[:-1]))
                    self._heads.append((child.lineno, child.body[0].lineno))
            self._inert += [_span(found) for found in _not_run(child)]
            if isinstance(node, ast.Module) and isinstance(child, ast.Assign) and _is_free(child):
                self._free.append(_span(child))
            self._walk(child, name)


def _not_run(node: ast.AST) -> Sequence[ast.expr | ast.stmt]:
    match node:
        case ast.AnnAssign(annotation=annotation, value=value):
            return [annotation, *([value] if value is not None and abs(_number(value)) >= BOUND_MIN else [])]
        case ast.arg(annotation=ast.expr() as annotation):
            return [annotation]
        case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
            return [returns]
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return [node]
        case ast.Call(func=ast.Name(id="dataclass" | "field"), keywords=keywords):
            return [keyword.value for keyword in keywords]  # slots, frozen: what only a program's author runs into
        case ast.Call(func=ast.Name(id="zip" | "lru_cache"), keywords=keywords):
            return [keyword.value for keyword in keywords]  # strict: as above; maxsize: a free choice
        case ast.Assign(value=value) if abs(_number(value)) >= BOUND_MIN:
            return [value]
        case ast.ClassDef(bases=bases) if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases):
            return [node]
        case ast.ClassDef(keywords=[_, *_] as keywords):
            return [keyword.value for keyword in keywords]
        case ast.Expr(value=ast.Constant()):
            return [node]
        case _:
            return []


def _is_free(node: ast.Assign) -> bool:
    free = {name for names in FREE_CHOICES.values() for name in names}
    return all(isinstance(target, ast.Name) and target.id in free for target in node.targets)


def _number(node: ast.expr) -> float:
    """The number that ``node`` spells, as ``64 * 1024`` does; 0 for anything else."""
    match node:
        case ast.Constant(value=bool()):
            return 0
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _number(left) * _number(right)
        case _:
            return 0


def _span(node: ast.expr | ast.stmt) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
