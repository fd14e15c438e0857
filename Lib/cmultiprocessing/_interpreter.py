# SPDX-License-Identifier: PSF-2.0
"""How to start another interpreter like this one: executable, flags, and the way to this package."""
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

__all__ = ["get_executable", "set_executable", "args_from_interpreter_flags", "program", "spawnv_passfds"]

# sys.flags field -> option letter, repeated as often as the value says.
_COUNTED_FLAGS = {
    "debug": "d",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
    "optimize": "O",
}

_executable: bytes | None = os.fsencode(sys.executable) if sys.executable else None


def set_executable(exe: str | bytes | os.PathLike[str] | None) -> None:
    """Choose the interpreter that spawned children run.

    Args:
        exe: its path. bytes and path-like objects since 3.11; None means that there is none.
    Source: multiprocessing documentation, 'Miscellaneous'.
    """
    global _executable
    _executable = None if exe is None else os.fsencode(exe)


def get_executable() -> bytes | None:
    """The path of the interpreter that spawned children run, None where the embedding program has none."""
    return _executable


def args_from_interpreter_flags() -> list[str]:
    """Options that give a new interpreter this one's flags, warning filters and -X options."""
    flags = sys.flags
    args = []
    for field, letter in _COUNTED_FLAGS.items():
        count = int(getattr(flags, field))
        if count:
            args.append("-" + letter * count)
    if flags.isolated:
        args.append("-I")  # implies the three below
    else:
        args += [
            option
            for field, option in (("ignore_environment", "-E"), ("no_user_site", "-s"), ("safe_path", "-P"))
            if getattr(flags, field)
        ]
    args += _warning_options() + _x_options()
    return args


def _warning_options() -> list[str]:
    """-W options without those that -b, -bb and -X dev add by themselves."""
    options = list(sys.warnoptions)
    implied = {0: [], 1: ["default::BytesWarning"]}.get(sys.flags.bytes_warning, ["error::BytesWarning"])
    if sys.flags.dev_mode:
        implied.append("default")
    for option in implied:
        if option in options:
            options.remove(option)
    return [f"-W{option}" for option in options]


def _x_options() -> list[str]:
    """-X options, as they were given."""
    options = [name if value is True else f"{name}={value}" for name, value in sys._xoptions.items()]
    return [f"-X{option}" for option in options]


def _package_home() -> str:
    """The folder that has to be on sys.path for this package to be found."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def program(statement: str) -> str:
    """`statement` for `python -c`, preceded by the way to this package where a new interpreter would not find it.

    Installed in the interpreter's own folders it is found without help, unless the site module is left out.
    What is added to sys.path stays there only until the start data brings the parent's sys.path.
    """
    home = _package_home()
    if home.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep)) and not sys.flags.no_site:
        return statement
    return f"import sys; sys.path.append({home!r}); {statement}"


def spawnv_passfds(
    path: bytes | str, args: Iterable[str | bytes], passfds: Iterable[int], environ: Mapping[str, str] | None = None
) -> int:
    """Run a program that inherits stdin, stdout, stderr and the given descriptors only.

    Args:
        path: the executable; it is not looked for in PATH.
        args: its argument vector, the program's own name first.
        passfds: descriptors that stay open under the same numbers.
        environ: what its environment has besides this process's.

    Returns:
        The new process's id.

    Raises:
        OSError: no process, or no descriptor, can be had.
    """
    import _posixsubprocess  # at call time: debuggers replace its fork_exec

    subprocess = sys.modules.get("subprocess")  # its switch is honoured; vfork is its default, too
    use_vfork = True if subprocess is None else subprocess._USE_VFORK
    nothing = (-1,) * 6
    variables = None if environ is None else [os.fsencode(f"{k}={v}") for k, v in {**os.environ, **environ}.items()]
    report_r, report_w = os.pipe()
    try:
        fork_exec: Any = _posixsubprocess.fork_exec  # its signature is not the same in all versions' stubs
        pid: int = fork_exec(
            list(args), [os.fsencode(path)], True, tuple(sorted(map(int, passfds))), None, variables, *nothing,
            report_r, report_w, False, False, -1, None, None, None, -1, None, use_vfork,
        )  # fmt: skip
        return pid
    finally:
        os.close(report_r)
        os.close(report_w)
