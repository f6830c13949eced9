"""Makes the classes of the bindings from those of the client, or checks that they are what the client says.

    python -m atoma.bindings.generate            writes them
    python -m atoma.bindings.generate --check    compares them with the committed ones; exit code 1 when they differ

Every public method of the client is there under its own name, with its own signature. What is awaited there is awaited under
asyncio and waited for by blocking code; so is what has to happen in the client's loop without being awaited there. What only
gives a value that is already there stays as it is.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parents[1]
WIDTH = 120
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Argument = str | list[str]  # of a call that is written: in one line, or in several

MODULES = {
    "results": {"WriteHandle": "atoma.runtime.results"},
    "store": {"Store": "atoma.runtime.store"},
    "transaction": {"TransactionStore": "atoma.runtime.transaction", "Transaction": "atoma.runtime.transaction"},
    "sync": {
        "LostRows": "atoma.sync.lost",
        "Outbox": "atoma.sync.waiting",
        "SyncControl": "atoma.sync.control",
        "ConflictInbox": "atoma.client.inbox",
        "Quarantine": "atoma.runtime.quarantine",
        "Presence": "atoma.sync.presence",
    },
    "history": {
        "PastView": "atoma.runtime.history",
        "CommitHistory": "atoma.runtime.history",
        "UndoStack": "atoma.runtime.undo",
    },
    "client": {"Client": "atoma.client.client"},
}
"""Module of a binding → its classes, and where the client has them."""
RESULTS = ("ItemResult", "ManyResult")
STATES = "WriteStates"
"""An Observable that each binding has, written by hand in its ``states``."""
HOMES = {
    **{name: module for module, classes in MODULES.items() for name in classes},
    **dict.fromkeys(RESULTS, "results"),
}
TITLES = {
    "results": "What became of writes",
    "store": "A store",
    "transaction": "Transactions",
    "sync": "Replication, the inbox and the quarantine",
    "history": "History and undo",
    "client": "The client",
}
LEFT_OUT = {
    ("Transaction", "buffer"): "what a store of the transaction is made of",
    ("Transaction", "bound"): "what a store of the transaction is made of",
    ("Transaction", "row"): "what a store of the transaction is made of",
    ("Transaction", "rows"): "what a store of the transaction is made of",
    ("SyncControl", "inbox"): "client.inbox is the same, with the client's way to write",
}
"""Members of the client that no binding has, and why."""
EITHER = (
    "if isinstance(what, {kind}):",
    "    return {wait}run(self._portal, lambda: self._native.explain(what))",
    "return {wait}run_sync(self._portal, lambda: self._native.explain(what, format=format))",
)
"""The body of ``explain``, the one method of which only a part is awaited."""
FIELDS = {
    "Client": [("schema", "Schema", "The declared stores.")],
    "Store": [("spec", "StoreSpec[T]", "The declaration.")],
    "TransactionStore": [("spec", "StoreSpec[T]", "The declaration.")],
    "PastView": [("commit", "int", "The commit.")],
    "WriteHandle": [
        ("id", "str", "The row's id."),
        ("version", "int", "Its local version, 0 when it is gone or the write was remote."),
        ("changed", "bool", "Whether the write changed anything."),
        ("key", "str", "What ``client.handle`` finds the write by; empty when it lies in no outbox."),
    ],
    "Transaction": [
        ("drawn", "tuple[str, ...]", "Ids that the hub has drawn, once the block is left."),
    ],
}
"""Attributes that are not methods: name, type, documentation."""
CHOICES = {
    "Transaction": [
        ("confirm", "Confirm | None", "Who has to confirm the commit."),
        ("durability", "Durability | None", "What the commit survives."),
    ]
}
"""As :data:`FIELDS`, for those that an application sets."""


@dataclass(frozen=True)
class Host:
    """The way in which a host writes what the client says.

    Attributes:
        name: What people call it.
        package: Its package below ``atoma.bindings``.
        coroutine: Before ``def`` of what is waited for.
        wait: Before a call that is waited for.
        words: Patterns and what stands for them, in annotations and documentation.
    """

    name: str
    package: str
    coroutine: str
    wait: str
    words: tuple[tuple[str, str], ...]


HOSTS = (
    Host("asyncio", "aio", "async ", "await ", ((r"caller's cancel scope", "caller's ``asyncio.timeout``"), (r"\bAwaitable\[(\w+)\]", r"\1"))),
    Host(
        "blocking calls", "blocking", "", "",
        (
            (r"caller's cancel scope", "caller's :func:`fail_after`"), (r"\bAwaitable\[(\w+)\]", r"\1"),
            (r"\bAsyncIterator\b", "Iterator"), (r"\basync (with|for)\b", r"\1"), (r"\bawait ", ""),
        ),
    ),
)  # fmt: skip


class ClientModule:
    """A module of the client.

    Args:
        name: Its dotted name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tree = ast.parse((PACKAGES / name.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
        self.origins: dict[str, str] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.origins.update({alias.name: node.module for alias in node.names})
        for node in self._tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if isinstance(target, ast.Name):
                self.origins[target.id] = name
            if isinstance(node, ast.ClassDef):
                self.origins[node.name] = name

    def class_of(self, name: str) -> ast.ClassDef:
        """The class of this name."""
        return next(node for node in self._tree.body if isinstance(node, ast.ClassDef) and node.name == name)


class BindingWriter:
    """The writer of one class of a binding.

    Args:
        host: For whom.
        name: The class.
        source: Where the client has it.
    """

    def __init__(self, host: Host, name: str, source: ClientModule) -> None:
        self._host = host
        self._name = name
        self._source = source
        self._class = source.class_of(name)
        self._bases = [ast.unparse(base) for base in self._class.bases]
        self.names: set[str] = set()
        self.imports: set[tuple[str, str]] = set()

    def lines(self) -> Iterator[str]:
        """The class."""
        native = f"{self._name}[T]" if self._bases else self._name
        base = f"({', '.join(self._bases)})" if self._bases else ""
        named = [part.id for each in self._class.bases for part in ast.walk(each) if isinstance(part, ast.Name)]
        self.imports |= {(self._source.origins[part], part) for part in named if part in self._source.origins}
        yield f"class {self._name}{base}:"
        yield from self._docs(self._class, "    ")
        yield ""
        yield '    __slots__ = ("_native", "_portal")'
        yield ""
        yield f"    def __init__(self, portal: Portal, native: {self._source.name}.{native}) -> None:"
        yield "        self._portal = portal"
        yield "        self._native = native"
        yield ""
        yield "    def __repr__(self) -> str:"
        yield "        return repr(self._native)"
        yield from self._fields()
        overloads: list[FunctionNode] = []
        for node in self._class.body:
            if not isinstance(node, FunctionNode) or not self._wanted(node.name):
                continue
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if "overload" in decorators:
                overloads.append(node)
                continue
            yield from self._method(node, decorators, overloads)
            overloads = []

    def _wanted(self, name: str) -> bool:
        block = name in ("__aenter__", "__aexit__")
        return block or not (name.startswith("_") or (self._name, name) in LEFT_OUT)

    def _fields(self) -> Iterator[str]:
        for settable, table in ((False, FIELDS), (True, CHOICES)):
            for name, plain, text in table.get(self._name, ()):
                kind = self._annotation(plain)
                yield from ("", "    @property", f"    def {name}(self) -> {kind}:", f'        """{text}"""')
                yield f"        return self._native.{name}"
                if settable:
                    yield from ("", f"    @{name}.setter", f"    def {name}(self, value: {kind}) -> None:")
                    yield f"        self._native.{name} = value"

    def _method(self, node: FunctionNode, decorators: set[str], overloads: list[FunctionNode]) -> Iterator[str]:
        returns = ast.unparse(node.returns) if node.returns else "None"
        native = f"self._native.{node.name}"
        given = self._arguments(node.args)
        call = _called(f"lambda: {native}", given, 12) if given else [native]
        if "lifetime" in decorators:
            returns = re.sub(r"^AsyncGenerator\[(.*)\]$", r"Lifetime[\1]", returns)
        head, _, deep = returns.partition("[")
        waits = isinstance(node, ast.AsyncFunctionDef) and head != "Lifetime"
        if head == STATES:
            place = f"atoma.bindings.{self._host.package}.states"
            body = [f"from {place} import {STATES}", "", f"return {STATES}(self._portal, lambda: {native})"]
            self.imports.add((place, STATES))
        elif "property" in decorators:
            body = [f"return {self._wrapped(head, native)}"]
        elif head == "Generator":  # a block that waits for nothing
            returns = re.sub(r"^Generator\[(.*)\]$", r"AbstractContextManager[\1]", returns)
            self._source.origins["AbstractContextManager"] = "contextlib"
            body = _called(f"return {native}", given)
        elif head in HOMES and not waits:
            body = [f"return {self._wrapped(head, _called(native, given)[0])}"]
        elif head == "Lifetime":
            wrap = self._lent(deep.removesuffix("]"))
            body = _called(f"return {self._use('held')}", ["self._portal", f'"{node.name}"', call, wrap])
        elif head == "Observable":
            live = f"lambda: self._native.live({', '.join(given)})"
            body = _called(f"return {self._use('observe')}", ["self._portal", live])
        elif head in ("Undo", "Callable"):
            waits = True
            listen = f"return {self._host.wait}{self._use('listen')}"
            body = _called(listen, ["self._portal", native, *given])
        elif overloads:
            query = re.search(r"what: (\w+)", ast.unparse(overloads[0].args))
            assert query, "the type says what is awaited"
            body = [line.format(wait=self._host.wait, kind=query[1]) for line in EITHER]
            waits = True
            self._use("run")
            self._use("run_sync")
        else:
            body = self._waiting(returns, f"{self._host.wait}{self._use('run' if waits else 'run_sync')}", call)
            waits = True
        names = {"__aenter__": "__enter__", "__aexit__": "__exit__"} if not self._host.coroutine else {}
        yield ""
        for each in overloads:
            yield from ("    @overload", *self._signature(each, each.name, ": ...", waits=waits))
        if "property" in decorators:
            yield "    @property"
        yield from self._signature(node, names.get(node.name, node.name), ":", waits=waits, returns=returns)
        yield from self._docs(node, "        ")
        yield from (f"        {line}".rstrip() for line in body)

    def _waiting(self, returns: str, run: str, call: Argument) -> list[str]:
        """What waits for the client's loop."""
        head = returns.partition("[")[0]
        if returns == "Self":
            return [*_called(run, ["self._portal", call]), "return self"]
        if head in HOMES:
            return [*_called(f"native = {run}", ["self._portal", call]), f"return {self._wrapped(head, 'native')}"]
        return _called(run if returns == "None" else f"return {run}", ["self._portal", call])

    def _wrapped(self, head: str, value: str) -> str:
        return f"{self._door(head)}(self._portal, {value})" if head in HOMES else value

    def _lent(self, kind: str) -> str:
        """What makes of the value of a block what the block here has."""
        if kind == "None":
            return self._use("nothing")
        return self._use("Values") if kind.startswith("AsyncIterator") else self._door(kind.partition("[")[0])

    def _door(self, name: str) -> str:
        if name != self._name:
            self.imports.add((f"atoma.bindings.{self._host.package}.{HOMES[name]}", name))
        return name

    def _use(self, name: str) -> str:
        self.imports.add((f"atoma.bindings.{self._host.package}.host", name))
        return name

    def _signature(
        self, node: FunctionNode, name: str, end: str, *, waits: bool, returns: str | None = None
    ) -> Iterator[str]:
        returns = returns or (ast.unparse(node.returns) if node.returns else "None")
        parameters = list(self._parameters(node.args))
        result = self._annotation(returns)
        start = f"    {self._host.coroutine if waits else ''}def {name}("
        line = f"{start}{', '.join(parameters)}) -> {result}{end}"
        if len(line) <= WIDTH:
            yield line
        else:
            yield start
            yield from (f"        {parameter}," for parameter in parameters)
            yield f"    ) -> {result}{end}"

    def _parameters(self, args: ast.arguments) -> Iterator[str]:
        positional = [*args.posonlyargs, *args.args]
        defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
        for place, (arg, default) in enumerate(zip(positional, defaults, strict=True), 1):
            yield self._parameter(arg, default)
            if place == len(args.posonlyargs):
                yield "/"
        if args.kwonlyargs:
            yield "*"
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            yield self._parameter(arg, default)
        if args.kwarg:
            yield f"**{self._parameter(args.kwarg, None)}"

    def _parameter(self, arg: ast.arg, default: ast.expr | None) -> str:
        if arg.annotation is None:
            return arg.arg
        text = f"{arg.arg}: {self._annotation(ast.unparse(arg.annotation))}"
        return text if default is None else f"{text} = {_quoted(ast.unparse(default))}"

    def _annotation(self, text: str) -> str:
        for pattern, word in self._host.words:
            text = re.sub(pattern, word, text)
        for word in re.findall(r"[A-Za-z_]\w*", text):
            origin = self._source.origins.get(word)
            if word in HOMES:
                self._door(word)
            elif word == "Lifetime":
                self._use(word)
            elif word == STATES:
                pass  # loaded where it is made
            elif origin:
                self.imports.add((origin, word))
            elif word == "Iterator":
                self.imports.add(("collections.abc", word))
            elif not hasattr(builtins, word) and word != "T":
                raise SystemExit(f"generate: {self._source.name} does not say where {word!r} comes from")
        return text

    def _arguments(self, args: ast.arguments) -> list[str]:
        """The arguments that hand on what came."""
        given = [arg.arg for arg in (*args.posonlyargs, *args.args) if arg.arg != "self"]
        given += [f"{arg.arg}={arg.arg}" for arg in args.kwonlyargs]
        return given + ([f"**{args.kwarg.arg}"] if args.kwarg else [])

    def _docs(self, node: ast.ClassDef | FunctionNode, indent: str) -> Iterator[str]:
        text = ast.get_docstring(node)
        if text is None:
            return
        for pattern, word in self._host.words:
            text = re.sub(pattern, word, text)
        first, *rest = text.split("\n")
        yield f'{indent}"""{first}' + ('"""' if not rest else "")
        yield from (f"{indent}{line}".rstrip() for line in rest)
        if rest:
            yield f'{indent}"""'


RESULT_CLASSES = '''\
class ItemResult(Generic[T]):
    """The result of one item of a ``_many`` call."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.results.ItemResult[T]) -> None:
        self._portal = portal
        self._native = native

    @property
    def id(self) -> str:
        """The item's id."""
        return self._native.id

    @property
    def handle(self) -> WriteHandle[T] | None:
        """Its handle, None when it was refused."""
        native = self._native.handle
        return None if native is None else WriteHandle(self._portal, native)

    @property
    def error(self) -> AtomaError | None:
        """Why it was refused, None when it was written."""
        return self._native.error

    @property
    def ok(self) -> bool:
        """Whether it was written."""
        return self._native.ok


class ManyResult(Generic[T]):
    """Item by item, in input order; one refused item never spoils the others."""

    __slots__ = ("_native", "_portal")

    def __init__(self, portal: Portal, native: atoma.runtime.results.ManyResult[T]) -> None:
        self._portal = portal
        self._native = native

    @property
    def status(self) -> WriteStatus:
        """``confirmed`` all, ``partial`` some, ``rejected`` none; ``undecided`` when the authority has not answered yet."""
        return self._native.status

    @property
    def items(self) -> Sequence[ItemResult[T]]:
        """One per input item."""
        return [ItemResult(self._portal, item) for item in self._native.items]

    @property
    def meta(self) -> ExecutionMeta:
        """How the write came about."""
        return self._native.meta

    def __iter__(self) -> Iterator[ItemResult[T]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self._native)

    @property
    def failed(self) -> Sequence[ItemResult[T]]:
        """The refused items."""
        return [ItemResult(self._portal, item) for item in self._native.failed]

    def raise_for_errors(self) -> ManyResult[T]:
        """Raise the first refused item's error, or return self; what is undecided is not an error yet."""
        self._native.raise_for_errors()
        return self
'''
RESULT_IMPORTS = {
    ("collections.abc", "Iterator"),
    ("collections.abc", "Sequence"),
    ("atoma.contracts.execution", "ExecutionMeta"),
    ("atoma.contracts.execution", "WriteStatus"),
    ("atoma.errors", "AtomaError"),
}


def module_text(host: Host, module: str) -> str:
    """One module of a binding."""
    body: list[str] = []
    imports = {("atoma.bindings.portal", "Portal")}
    for name, place in MODULES[module].items():
        writer = BindingWriter(host, name, ClientModule(place))
        body += [*writer.lines(), "", ""]
        imports |= writer.imports
    text = "\n".join(body).rstrip() + "\n"
    if module == "results":
        text += f"\n\n{RESULT_CLASSES}"
        imports |= RESULT_IMPORTS
    late = {pair for pair in imports if pair[0] == "reactivex" or pair[1] == STATES}  # only for who wants an Observable
    typing = {name for name in ("Generic", "Self", "overload") if re.search(rf"\b{name}\b", text)}
    typing |= {"TypeVar"} if "Generic" in typing or "[T]" in text else set()
    typing |= {"TYPE_CHECKING"} if late else set()
    imports = {pair for pair in imports - late if pair[0] not in ("typing", f"atoma.bindings.{host.package}.{module}")}
    imports |= {("typing", name) for name in typing}
    ours = {pair for pair in imports if pair[0].startswith("atoma")}
    groups = [
        [f'"""{TITLES[module]}, for {host.name}; made by ``python -m atoma.bindings.generate``."""'],
        ["from __future__ import annotations"],
        [*import_lines(imports - ours)],
        [*sorted(f"import {place}" for place in {*MODULES[module].values()}), *import_lines(ours)],
        ["if TYPE_CHECKING:", *(f"    from {origin} import {name}" for origin, name in sorted(late))] if late else [],
        ['T = TypeVar("T")'] if "TypeVar" in typing else [],
    ]
    return "\n\n".join("\n".join(group) for group in groups if group) + f"\n\n\n{text}"


def import_lines(imports: set[tuple[str, str]]) -> Iterator[str]:
    """The lines of some imports, as the linter sorts them."""
    for origin in sorted({origin for origin, _ in imports}):
        names = sorted((name for place, name in imports if place == origin), key=lambda name: (_rank(name), name))
        line = f"from {origin} import {', '.join(names)}"
        if len(line) <= WIDTH:
            yield line
        else:
            yield f"from {origin} import ("
            yield from (f"    {name}," for name in names)
            yield ")"


def _called(function: str, arguments: Sequence[Argument], indent: int = 8) -> list[str]:
    """The lines of a call: one if it fits, else one for each argument."""
    flat = [
        "".join(argument) if isinstance(argument, list) and len(argument) == 1 else argument for argument in arguments
    ]
    if all(isinstance(argument, str) for argument in flat):
        line = f"{function}({', '.join(map(str, flat))})"
        if len(line) + indent <= WIDTH:
            return [line]
    lines: list[str] = []
    for argument in flat:
        *first, last = [argument] if isinstance(argument, str) else argument
        lines += [f"    {line}" for line in (*first, f"{last},")]
    return [f"{function}(", *lines, ")"]


def _quoted(source: str) -> str:
    return source.replace("'", '"')


def _rank(name: str) -> int:
    return 0 if name.isupper() else 1 if name[:1].isupper() else 2


def texts() -> dict[Path, str]:
    """Every module that is made, by its path."""
    return {HERE / host.package / f"{module}.py": module_text(host, module) for host in HOSTS for module in MODULES}


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    made = texts()
    if arguments == ["--check"]:
        different = [
            path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]
        for path in different:
            sys.stderr.write(
                f"{path.relative_to(PACKAGES)} is not what the client says: run python -m atoma.bindings.generate\n"
            )
        return int(bool(different))
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
