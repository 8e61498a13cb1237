"""The structure, proved: who imports whom (Python, C), who reads clocks and draws randomness, that no state is global.

The layers, from the bottom; a layer knows those below it, and of its own row only its own folder:

    0  libos/: errors, clock, rand, the C half  2  net/, blk/      4  libos/: everything else
    1  sched/                                   3  vfs/            -  bench/, tests/, examples/: nobody imports them
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"sched": 1, "net": 2, "blk": 2, "vfs": 3}
BASE = {"errors", "clock", "rand", "_native", "_loop", "_build"}
TOP = 4

# Where the rules end, each for a reason.
READS_CLOCKS = {
    "libos/clock.py": "it is the clock",
    "sched/reactor.c": "CLOCK_MONOTONIC plus the clock's offset, read once per turn",
    "libos/sim/clocks.py": "it puts a machine's clocks in the place of the host's",
}
DRAWS = {
    "libos/rand.py": "it is the randomness",
    "libos/sim/entropy.py": "it puts a machine's randomness in the place of the host's",
}


def python_files() -> list[Path]:
    own = [file for folder in (".", "look", "shim", "sim") for file in (ROOT / "libos" / folder).glob("*.py")]
    return [*own, *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]


def c_files() -> list[Path]:
    return [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.[ch]")]


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def place_of_file(file: Path) -> tuple[int, str]:
    """Its layer and its folder."""
    folder, *rest = file.relative_to(ROOT).parts
    if folder in FOLDERS:
        return FOLDERS[folder], folder
    return (0, "base") if rest[-1].removesuffix(".py") in BASE and len(rest) == 1 else (TOP, "libos")


def place_of_module(module: str) -> tuple[int, str] | None:
    """The same of what ``import`` names; None: not ours."""
    parts = module.split(".")
    if parts[0] in FOLDERS:
        pytest.fail(f"{module} is imported by the name of its folder: libos.{module} is its name")
    if parts[0] != "libos":
        return None
    part = parts[1] if len(parts) > 1 else ""
    if part in FOLDERS:
        return FOLDERS[part], part
    if part == "bench":
        return TOP + 1, part
    return (0, "base") if part in BASE else (TOP, "libos")


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Each imported module with its line, wherever it stands: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(file.read_text(), name(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}:{node.lineno}: a relative import"
            if node.module == "libos":
                yield from ((node.lineno, f"libos.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def allowed(here: tuple[int, str], there: tuple[int, str]) -> bool:
    return there[0] < here[0] or there == here


@pytest.mark.parametrize("file", python_files(), ids=name)
def test_python_imports_point_down(file: Path) -> None:
    here = place_of_file(file)
    for line, module in imports(file):
        there = place_of_module(module)
        assert there is None or allowed(here, there), f"{name(file)}:{line} imports {module}"


def test_c_includes_point_down() -> None:
    for file in c_files():
        here = place_of_file(file)
        for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE):
            folder, slash, _ = include.partition("/")
            assert slash, f"{name(file)}: {include} is to be named from the root"
            assert folder in FOLDERS, f"{name(file)} includes {include}"
            assert allowed(here, (FOLDERS[folder], folder)), f"{name(file)} includes {include}"


def test_folders_refuse_the_standard_librarys_name() -> None:
    for folder in (*FOLDERS, "bench"):
        assert f'assert __name__ == "libos.{folder}"' in (ROOT / folder / "__init__.py").read_text()
        link = ROOT / "libos" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..", folder)


# --- time and randomness are given, never taken ---------------------------------------------------------------------

CLOCK_MODULES = {"time", "datetime"}
RANDOM_MODULES = {"random", "secrets", "uuid"}


def test_nobody_else_reads_a_clock_or_draws() -> None:
    for file in python_files():
        modules = {module.partition(".")[0] for _, module in imports(file)}
        if name(file) not in READS_CLOCKS:
            assert not modules & CLOCK_MODULES, name(file)
        if name(file) not in DRAWS:
            assert not modules & RANDOM_MODULES, name(file)
            assert not re.search(r"\bos\.(urandom|getrandom)\b", file.read_text()), name(file)


def test_no_c_reads_a_clock_or_draws() -> None:
    calls = r"\b(clock_gettime|gettimeofday|time|clock|getrandom|random|rand|rand_r|__rdtsc)\s*\("
    for file in c_files():
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text(), flags=re.DOTALL)
        found = set(re.findall(calls, code))
        if name(file) in READS_CLOCKS:
            assert found <= {"clock_gettime"}, name(file)
        else:
            assert not found, f"{name(file)} calls {found}"


def test_the_exceptions_are_needed() -> None:
    for file in (*READS_CLOCKS, *DRAWS):
        assert (ROOT / file).is_file()


# --- no state is global ------------------------------------------------------------------------------------------

MUTABLE = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "WeakSet", "count"}


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in MUTABLE
    return False


def assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr | None]]:
    """Names that a module or a class binds as it is executed, with what they are bound to."""
    for node in body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((ast.unparse(target), value) for target in targets)
            case ast.AnnAssign(target=target, value=value) if value is not None:
                yield ast.unparse(target), value
            case ast.ClassDef(body=inner) | ast.With(body=inner):
                yield from assigned(inner)
            case ast.If(body=inner, orelse=other) | ast.Try(body=inner, orelse=other):
                yield from assigned([*inner, *other])


@pytest.mark.parametrize("file", python_files(), ids=name)
def test_python_keeps_no_state_in_modules(file: Path) -> None:
    tree = ast.parse(file.read_text())
    for target, value in assigned(tree.body):
        if target in ("__all__", "__slots__", "__match_args__") or name(file) == "libos/_build.py":
            continue  # said once, read by the interpreter; _build.py is a build script
        assert not is_mutable(value), f"{name(file)}: {target} is mutable: use a tuple, a frozenset or MappingProxyType"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"{name(file)}:{node.lineno}: global {node.names}"


def writable_symbols(library: Path) -> set[str]:
    """What lies in .data, .bss and their thread-local twins. Relocated constants (.data.rel.ro) are not state."""
    sections = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    ranges = [
        (int(address, 16), int(address, 16) + int(size, 16))
        for address, size in re.findall(r"\s\.t?(?:data|bss)\s+\w+\s+([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+)", sections)
    ]
    symbols = subprocess.run(["nm", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    return {
        symbol
        for address, _, symbol in (line.split() for line in symbols.splitlines())
        if any(start <= int(address, 16) < end for start, end in ranges)
    }


@pytest.mark.skipif(not shutil.which("nm") or not shutil.which("readelf"), reason="needs binutils")
def test_c_keeps_no_state_in_statics() -> None:
    from libos import _native

    assert _native.__file__ is not None
    library = Path(_native.__file__)
    if b"__asan_init" in library.read_bytes():
        pytest.skip("the sanitizer keeps state of its own")
    toolchain = r"_cffi_\w+|completed\.\d+|__\w+|_edata|_end|_GLOBAL_OFFSET_TABLE_"
    found = {symbol for symbol in writable_symbols(library) if not re.fullmatch(toolchain, symbol)}
    assert not found


def test_c_declares_no_variable_statics() -> None:
    """The same at the source, where a compiler may have optimised one away: every static object is const,
    but for Python's own notes of a module."""
    for file in c_files():
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text(), flags=re.DOTALL)
        for declaration in re.findall(r"^[ \t]*static\b[^;{(]*[;={]", code, re.MULTILINE):
            is_const = re.search(r"\bconst\b", declaration) or "_Static_assert" in declaration
            assert is_const or "PyModuleDef" in declaration, f"{name(file)}: {declaration.strip()}"
