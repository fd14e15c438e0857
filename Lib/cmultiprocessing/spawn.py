# SPDX-License-Identifier: PSF-2.0
"""Start data: what a child that does not inherit memory has to know, and how it becomes its parent's likeness.

The parent pickles two objects into one anonymous file: the preparation data, a dict, and then the process object. The
file is complete before the child exists: neither can block the other, and a parent killed meanwhile leaves no half.
"""
from __future__ import annotations

import os
import sys
import types
from io import BytesIO
from itertools import chain

from . import (
    _alias,
    _cmultiprocessing,
    _default_context,
    _interpreter,
    _leash,
    _log_records,
    process,
    reduction,
    resource_tracker,
)
from ._interpreter import get_executable, set_executable

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["_main", "freeze_support", "set_executable", "get_executable", "get_preparation_data", "get_command_line",
           "import_main_path"]  # fmt: skip

WINEXE = False
WINSERVICE = False

old_main_modules: list[types.ModuleType] = []

_MAIN = "__mp_main__"


def __getattr__(name: str) -> Any:
    """Names by which other libraries know things."""
    if name == "_python_exe":
        return get_executable()
    if name in ("get_start_method", "set_start_method"):
        return getattr(sys.modules[__package__ or ""], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_forking(argv: list[str]) -> bool:
    """Whether this command line is that of a spawned child of a frozen program."""
    return len(argv) >= 2 and argv[1] == "--multiprocessing-fork"


def freeze_support() -> None:
    """In a spawned child of a frozen program, or in its fork server: be that, and do not return.

    Source: multiprocessing documentation, 'Miscellaneous'.
    """
    if not is_forking(sys.argv):
        helper = _helper_statement(sys.argv)
        if helper is not None:
            exec(helper, {"__name__": "__main__"})
            sys.exit()
        return
    kwds: dict[str, Any] = {}
    for argument in sys.argv[2:]:
        name, _, value = argument.partition("=")
        kwds[name] = None if value == "None" else value if name == "ticket" else int(value)
    spawn_main(**kwds)


def _helper_statement(argv: list[str]) -> str | None:
    """What a helper of this package was started with: a frozen program knows no -c, and is started instead."""
    if not getattr(sys, "frozen", False):
        return None
    from itertools import pairwise

    for option, statement in pairwise(argv[1:]):
        if option == "-c" and f"from {__package__}." in statement and " import main; main(" in statement:
            return statement
    return None


def get_command_line(**kwds: Any) -> list[str | bytes]:
    """The command line of a child.

    Args:
        kwds: arguments of `spawn_main` there.
    """
    if getattr(sys, "frozen", False):
        return [sys.executable, "--multiprocessing-fork", *(f"{name}={value}" for name, value in kwds.items())]
    arguments = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    statement = f"from {__name__} import spawn_main; spawn_main({arguments})"
    executable = get_executable()
    if executable is None:
        raise RuntimeError("no interpreter to run: sys.executable is empty, use set_executable()")
    options = _interpreter.args_from_interpreter_flags()
    return [executable, *options, "-c", _interpreter.program(statement), "--multiprocessing-fork"]


def spawn_main(
    pipe_handle: int,
    parent_pid: int | None = None,
    tracker_fd: int | None = None,
    *,
    family_fd: int | None = None,
    ticket: str = "",
    leash_fd: int = -1,
    leashed: int = 0,
) -> NoReturn:
    """All of a spawned child's life. Only for command lines made by `get_command_line`.

    Args:
        pipe_handle: the file with the start data.
        parent_pid: not needed on this system.
        tracker_fd: descriptor of the resource tracker, None if none runs.
        family_fd: descriptor of the place in the family that is reserved for this process.
        ticket: which place, in hexadecimal.
        leash_fd: gets ready when the parent dies.
        leashed: whether this process dies then.
    """
    if not is_forking(sys.argv) and not getattr(sys, "frozen", False):
        raise AssertionError("spawn_main is called in children that this package starts, not by programs")
    if leashed:
        _leash.arm(leash_fd)
    if family_fd is not None:
        _cmultiprocessing.family_join(family_fd, bytes.fromhex(ticket))
    if tracker_fd is not None:
        resource_tracker._resource_tracker._fd = tracker_fd
    _main(pipe_handle, leash_fd)


def _main(data: int | bytes, parent_sentinel: int) -> NoReturn:
    """Become the process in the start data, and live its life.

    Args:
        data: the start data, or the file with them.
        parent_sentinel: gets ready when the parent dies.
    """
    code = 1
    try:
        process._close_stdin()
        process_obj = _load(data)
        code = process_obj._bootstrap(parent_sentinel=parent_sentinel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        process.leave(code)


def _load(data: int | bytes) -> process.BaseProcess:
    """Prepare this interpreter, then the process object of the start data."""
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]
    try:
        with BytesIO(data) if isinstance(data, bytes) else open(data, "rb") as file:
            prepare(reduction.load(file))
            process_obj: process.BaseProcess = reduction.load(file)
    finally:
        del current._inheriting  # type: ignore[attr-defined]
    return process_obj


def _check_not_importing_main() -> None:
    """Refuse to start a process while the program's main module is imported in a child.

    Raises:
        RuntimeError: the usual reason, and what to do.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "A process cannot be started while this child process still imports the program's main module: the "
            "import would start processes without end. The start method is not fork, so every child imports that "
            "module. Put the part that starts processes below\n\n"
            "    if __name__ == '__main__':\n"
            "        freeze_support()  # only where the program is frozen into an executable\n"
        )


def get_preparation_data(name: str) -> dict[str, Any]:
    """What a child has to know before its process object can be unpickled.

    Args:
        name: the child's name.

    Returns:
        A dict; coverage tools and freezers add entries of their own.

    Raises:
        RuntimeError: this process is itself importing the main module.
    """
    _check_not_importing_main()
    current = process.current_process()
    data: dict[str, Any] = {
        "name": name,
        "authkey": current.authkey,
        "sys_path": _path_for_child(),
        "sys_argv": sys.argv,
        "orig_dir": process.ORIGINAL_DIR,
        "dir": _working_directory(),
        "start_method": _default_context.get_context().get_start_method(),
        "alias": _alias.is_installed(),
        "strict_daemons": process.strict_daemons,
    }
    util = sys.modules.get(f"{__package__}.util")
    if util is not None:
        logger = util._logger
        data["log_to_stderr"] = util._log_to_stderr
        data["log_level"] = None if logger is None else logger.getEffectiveLevel()
        if logger is not None:
            data["prepare_logging"] = util.prepare_logging  # its name, so that only such children import it
    data.update(_main_module_for_child())
    if not _imports_main(data):
        from . import _by_value

        _by_value.activate()
        data["main_by_value"] = True
    return data


def _path_for_child() -> list[str]:
    """sys.path, with the entry for "where the program was started" spelled out."""
    return [process.ORIGINAL_DIR if entry == "" and process.ORIGINAL_DIR else entry for entry in sys.path]


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


def _imports_main(data: dict[str, Any]) -> bool:
    """Whether a child will import the main module, and find there what is defined in it.

    Not the __main__ of a package, a directory or a zip file, which need no guard and have none, and not ipython's own,
    which starts a shell.
    """
    name: str | None = data.get("init_main_from_name")
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    path: str | None = data.get("init_main_from_path")
    return path is not None and os.path.splitext(os.path.basename(path))[0] != "ipython"


def _main_module_for_child() -> dict[str, str]:
    """How the child can import the main module: by name for -m and zip applications, by path for scripts."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if path is None:
        return {}  # -c, the interactive prompt, a notebook: there is nothing to import
    if not os.path.isabs(path) and process.ORIGINAL_DIR is not None:
        path = os.path.join(process.ORIGINAL_DIR, path)
    if not os.path.exists(path) and not getattr(sys, "frozen", False):
        return {}  # "<stdin>", or a script that is gone; the main module of a frozen program is in every child
    return {"init_main_from_path": os.path.normpath(path)}


def prepare(data: dict[str, Any]) -> None:
    """Make this interpreter its parent's likeness.

    Args:
        data: what `get_preparation_data` gave there; unknown entries are ignored.
    """
    current = process.current_process()
    if data.get("alias"):
        _alias.install()
    if "name" in data:
        current.name = data["name"]
    _log_records.watch(process.current_name)  # also in the fork server, to whose children the name goes its own way
    if "authkey" in data:
        current.authkey = data["authkey"]
    if "strict_daemons" in data:
        process.strict_daemons = data["strict_daemons"]
    if "prepare_logging" in data:
        data["prepare_logging"](data)
    if "environ" in data:
        _prepare_environment(data["environ"])
    if "sys_path" in data:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if data.get("dir") is not None:
        os.chdir(data["dir"])
    if "orig_dir" in data:
        process.ORIGINAL_DIR = data["orig_dir"]
    if "start_method" in data:
        _default_context.forced = data["start_method"]
    if "main_by_value" in data:
        from . import _by_value

        old_main_modules.append(_by_value.adopt_main())
    elif "init_main_from_name" in data:
        _fixup_main_from_name(data["init_main_from_name"])
    elif "init_main_from_path" in data:
        _fixup_main_from_path(data["init_main_from_path"])


def get_environment() -> bytes:
    """The environment: names and values in turn, each ended by a NUL, which none of them can contain.

    One object, since a forked child pays for each object that it looks at. os.environ keeps bytes, and decodes each
    name and value for whoever looks at it: too dear for every child.
    """
    data = getattr(os.environ, "_data", None)
    if data is None:  # a program put another mapping in its place
        data = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    return b"\0".join([*chain.from_iterable(data.items()), b""])


_known_environment: bytes | None = None


def know_environment() -> None:
    """In the fork server, when its environment changes no more: children see by one comparison that it is theirs."""
    global _known_environment
    _known_environment = get_environment()


def _prepare_environment(environ: bytes) -> None:
    """Take over the environment, where it differs: each change is a call into the C library."""
    if environ == _known_environment:
        return
    parts = environ.split(b"\0")
    wanted = dict(zip(parts[:-1:2], parts[1::2], strict=True))
    for name in [name for name in os.environb if name not in wanted]:
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


def _fixup_main_from_name(mod_name: str) -> None:
    """Import the main module of a program that was run with -m.

    Args:
        mod_name: its full name.
    """
    main = sys.modules["__main__"]
    # A package's __main__, ipython's own main: either it guards nothing, or there is nothing of the user's in it.
    if mod_name == "__main__" or mod_name.endswith(".__main__"):
        return
    if getattr(main.__spec__, "name", None) == mod_name:
        return  # done before the fork, by the fork server
    old_main_modules.append(main)
    import runpy

    module = types.ModuleType(_MAIN)
    content = runpy.run_module(mod_name, run_name=_MAIN, alter_sys=True)
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules[_MAIN] = module


def _fixup_main_from_path(main_path: str) -> None:
    """Import the main module of a program that was run by its path.

    Args:
        main_path: script, directory or zip file.
    """
    main = sys.modules["__main__"]
    stem = os.path.splitext(os.path.basename(main_path))[0]
    if stem == "ipython":
        return  # its main module starts a shell and guards nothing
    if getattr(main, "__file__", None) == main_path:
        return  # done before the fork, by the fork server
    old_main_modules.append(main)
    module = types.ModuleType(_MAIN)
    if not _run_source(main_path, module):
        import runpy

        module.__dict__.update(runpy.run_path(main_path, run_name=_MAIN))
    sys.modules["__main__"] = sys.modules[_MAIN] = module


def _run_source(path: str, module: types.ModuleType) -> bool:
    """Run a plain source file as runpy does, without importing runpy and all that it needs.

    Args:
        path: the file.
        module: where its names go; in sys.modules under its name while it runs.

    Returns:
        Whether it was one: directories, zip and .pyc files are runpy's.
    """
    if not path.endswith(".py") or not os.path.isfile(path):
        return False
    import io

    with io.open_code(path) as file:
        source = file.read()
    if b"\0" in source:
        return False
    code = compile(source, path, "exec", dont_inherit=True)
    module.__dict__.update(__file__=path, __cached__=None, __package__="", __builtins__=__builtins__)
    argv, before = sys.argv, sys.modules.get(_MAIN)
    sys.argv = [path, *argv[1:]]
    sys.modules[_MAIN] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        if before is None:
            del sys.modules[_MAIN]
        else:
            sys.modules[_MAIN] = before
        raise
    finally:
        sys.argv = argv
    return True


def import_main_path(main_path: str) -> None:
    """Import the script at `main_path` as the main module; the old one is kept."""
    _fixup_main_from_path(main_path)
