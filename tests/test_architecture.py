# SPDX-License-Identifier: PSF-2.0
"""Includes and imports point down only; Python and the operating system each stay in their own folder.

The rules are functions from a source text to complaints. They run over the whole tree, and over planted sources that
break them, which shows that they can complain.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "Modules" / "_cmultiprocessing"
TESTING = ROOT / "Modules" / "_testcmultiprocessing"
PACKAGE = ROOT / "Lib" / "cmultiprocessing"

#: Folder of the C library -> what it may include besides itself.
BELOW = {
    "core": set(),
    "os": {"core"},
    "shm": {"core", "os"},
    "io": {"core", "os"},
    "sync": {"core", "os", "shm"},
    "structures": {"core", "os", "shm", "sync"},
    "py": {"core", "os", "shm", "io", "sync", "structures"},
}
#: Headers by which the operating system gets in. Threads of this process (pthread.h) are the C library's.
SYSTEM_HEADER = re.compile(r"sys/|linux/|unistd\.h|fcntl\.h|sched\.h|poll\.h|signal\.h|time\.h|dirent\.h")
PLATFORM_MACRO = re.compile(
    r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b.*\b(__linux__|__APPLE__|_WIN32|__\w*BSD__|__GLIBC__)", re.MULTILINE
)
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

#: Module of the package -> level. A module imports lower levels only; the extension is below all of them.
LEVELS = {
    name: level
    for level, names in enumerate(
        [
            "_cmultiprocessing",
            "_alias _default_context _errors _interpreter _later _leash _log_records _peers _requests _signals "
            "_socket_files "
            "_spawning _threads",
            "_authentication _cpus _jobs _pool_errors",
            "process reduction",
            "_by_value util",
            "_sessions connection heap popen_fork resource_tracker",
            "_listener queues shared_memory sharedctypes spawn synchronize",
            "_dispatch _manager_protocol",
            "_crew",
            "pool",
            "resource_sharer popen_spawn_posix popen_spawn_win32 dummy.connection",
            "forkserver dummy",
            "_manager_server _manager_proxies",
            "managers popen_forkserver",
            "context",
            "__init__ __main__",
        ]
    )
    for name in names.split()
}
STDLIB = re.compile(r"(multiprocessing|_multiprocessing|_posixshmem|concurrent\.futures)(\.|$)")


# --- C -------------------------------------------------------------------------------------------


def include_complaints(folder: str, text: str) -> Iterator[str]:
    """Why a C source of a folder must not include what it includes."""
    for own, system in INCLUDE.findall(text):
        if own:
            target = own.partition("/")[0]
            if "/" not in own or ".." in own:
                yield f'"{own}": write the folder and the name'
            elif target != folder and target not in BELOW[folder]:
                yield f'"{own}": {folder}/ is not above {target}/'
        elif system == "Python.h" or system.startswith(("structmember", "pythread", "internal/")):
            if folder != "py":
                yield f"<{system}>: only py/ knows Python"
        elif SYSTEM_HEADER.match(system) and folder not in ("os", "py"):
            yield f"<{system}>: only os/ makes system calls"
    if folder != "os":
        for macro in PLATFORM_MACRO.findall(text):
            yield f"#if {macro}: only os/ knows platforms"


def c_sources() -> list[Path]:
    return sorted(path for path in NATIVE.rglob("*.[ch]"))


def test_every_c_file_is_in_a_known_folder() -> None:
    assert c_sources()
    strays = [path for path in c_sources() if path.parent.parent != NATIVE or path.parent.name not in BELOW]
    assert not strays


@pytest.mark.parametrize("path", c_sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_includes_point_down(path: Path) -> None:
    assert not list(include_complaints(path.parent.name, path.read_text()))


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("core", '#include "os/os.h"'),
        ("os", '#include "shm/layout.h"'),
        ("shm", '#include "io/frame.h"'),
        ("io", '#include "shm/family.h"'),
        ("sync", "#  include <Python.h>"),
        ("sync", '#include "structures/ring.h"'),
        ("structures", '#include "py/state.h"'),
        ("shm", "#include <sys/mman.h>"),
        ("core", "#include <time.h>"),
        ("sync", "#include <unistd.h>"),
        ("sync", "#ifdef __linux__\n#endif"),
        ("py", '#include "state.h"'),
        ("py", '#include "../core/base.h"'),
    ],
)
def test_include_rule_complains(folder: str, text: str) -> None:
    assert len(list(include_complaints(folder, f"/* x */\n{text} /* y */\n"))) == 1


def test_include_rule_is_content() -> None:
    good = '#include "core/base.h"\n#include "sync/mutex.h"\n#include <stdint.h>\n'
    assert not list(include_complaints("sync", good))
    assert not list(include_complaints("os", "#include <sys/mman.h>\n#ifdef __linux__\n#endif\n"))
    assert not list(include_complaints("py", "#include <Python.h>\n"))


# --- Python --------------------------------------------------------------------------------------


def imported(module: str, text: str) -> Iterator[str]:
    """The absolute name of every import, inside functions too; those for type checkers are left out."""
    package = ["cmultiprocessing", *module.split(".")[:-1]]
    if module == "dummy":
        package = ["cmultiprocessing", "dummy"]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            # `from . import util` names a module, `from .util import x` a thing in one
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(text))


def own_module(name: str) -> str | None:
    """The module of the package that an absolute name leads to: the longest known beginning of it."""
    parts = name.split(".")
    if parts[0] != "cmultiprocessing":
        return None
    for end in range(len(parts), 1, -1):
        candidate = ".".join(parts[1:end])
        if candidate in LEVELS:
            return candidate
    return "__init__"


def import_complaints(module: str, text: str) -> Iterator[str]:
    """Why a module of the package must not import what it imports."""
    for name in imported(module, text):
        if STDLIB.match(name):
            yield f"{name}: the standard library's own is never imported"
        target = own_module(name)
        if target is None or target == module:
            continue
        if LEVELS[target] >= LEVELS[module] and not target.startswith(f"{module}."):
            yield f"{name}: level {LEVELS[target]}, and {module} is at {LEVELS[module]}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1]) if len(parts) > 1 and parts[-1] == "__init__" else ".".join(parts)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_level() -> None:
    assert modules()
    assert {module_name(path) for path in modules()} <= set(LEVELS)


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_point_down(path: Path) -> None:
    assert not list(import_complaints(module_name(path), path.read_text()))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("util", "from . import context"),
        ("util", "from .context import Process"),
        ("util", "from cmultiprocessing.queues import Queue"),
        ("process", "from . import reduction"),
        ("util", "def f():\n    from . import queues"),
        ("queues", "import multiprocessing.queues"),
        ("queues", "from multiprocessing import util"),
        ("queues", "import _multiprocessing"),
        ("queues", "try:\n    from concurrent.futures import process\nexcept ImportError:\n    pass"),
        ("util", "import importlib\nimportlib.import_module('multiprocessing.util')"),
        ("dummy.connection", "from .. import context"),
        ("process", "from cmultiprocessing import cpu_count"),
    ],
)
def test_import_rule_complains(module: str, text: str) -> None:
    assert len(list(import_complaints(module, text))) == 1


def test_import_rule_is_content() -> None:
    text = "import os\nfrom . import util, process\nfrom ._cmultiprocessing import Lock\n"
    assert not list(import_complaints("queues", text))
    assert not list(import_complaints("context", "def f():\n    from .queues import Queue\n"))
    assert not list(import_complaints("util", "if TYPE_CHECKING:\n    from .context import BaseContext\n"))
    assert not list(import_complaints("dummy", "from .connection import Pipe\nfrom ..process import x\n"))


def test_importing_everything_leaves_the_standard_library_out() -> None:
    names = [
        "cmultiprocessing" if name == "__init__" else f"cmultiprocessing.{name}"
        for name in map(module_name, modules())
        if name != "popen_spawn_win32"
    ]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('multiprocessing', '_multiprocessing', '_posixshmem')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


# --- files ---------------------------------------------------------------------------------------


def test_every_file_names_its_licence() -> None:
    suffixes = {".c", ".h", ".py", ".pyi", ".toml", ".rst", ".md", ".sh"}
    built = {"build", "dist", "__pycache__"}
    paths = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name not in built]
        paths += [Path(folder, name) for name in names if Path(name).suffix in suffixes]
    assert paths
    missing = [path for path in paths if "SPDX-License-Identifier: PSF-2.0" not in head(path)]
    assert not missing


def head(path: Path) -> str:
    return "\n".join(path.read_text().splitlines()[:3])
