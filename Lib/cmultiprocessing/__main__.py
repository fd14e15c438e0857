# SPDX-License-Identifier: PSF-2.0
"""Run a program in which `multiprocessing` means this package, in all of its processes.

python -m cmultiprocessing prog.py [arguments]
python -m cmultiprocessing -m module [arguments]
python -m cmultiprocessing -c statements [arguments]
"""
from __future__ import annotations

import io
import os
import runpy
import sys
import types

from . import _alias

__all__ = ["main"]

_USAGE = "usage: python -m cmultiprocessing (prog.py | -m module | -c statements) [arguments]"


def main(arguments: list[str]) -> None:
    """Become the program.

    Args:
        arguments: what follows the package's name on the command line.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE)
        return
    if not arguments or (arguments[0] in ("-m", "-c") and len(arguments) < 2):
        sys.exit(_USAGE)
    _alias.install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        _run(arguments[1], "<string>", None)
    elif os.path.isfile(arguments[0]) and arguments[0].endswith(".py"):
        _run_script(arguments)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _run_script(arguments: list[str]) -> None:
    """Run a source file as the interpreter does."""
    path = arguments[0]
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    with io.open_code(os.path.abspath(path)) as file:
        source = file.read()
    _run(source, path, path)


def _run(source: bytes | str, name: str, file: str | None) -> None:
    """Execute source as the module __main__, which stays that for the rest of the process."""
    main_module = types.ModuleType("__main__")
    main_module.__dict__["__builtins__"] = __builtins__
    if file is not None:
        main_module.__file__ = file
    sys.modules["__main__"] = main_module
    exec(compile(source, name, "exec", dont_inherit=True), main_module.__dict__)


if __name__ == "__main__":
    main(sys.argv[1:])
