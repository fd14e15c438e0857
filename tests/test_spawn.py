# SPDX-License-Identifier: PSF-2.0
"""How children find the program's main module, and what they take over from their parent."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import LIBRARY, run_python

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import os, sys
import {package} as mp

def work(connection, value):
    connection.send((value * 2, __name__))

class Carried:
    pass

if __name__ == "__main__":
    mp.freeze_support()
    ctx = mp.get_context(sys.argv[1])
    receiver, sender = ctx.Pipe(False)
    for value in (21, Carried):
        if value is Carried:
            process = ctx.Process(target=isinstance, args=(Carried(), Carried))
        else:
            process = ctx.Process(target=work, args=(sender, value))
        process.start()
        if value is not Carried:
            print(*receiver.recv())
        process.join()
        assert process.exitcode == 0, process
    print("done", *sys.argv[1:])
"""


def run(*arguments: str | Path, cwd: Path | None = None, code: int = 0) -> tuple[str, str]:
    done = run_python(*arguments, cwd=cwd)
    assert done[0] == code, done
    return done[1:]


def expected(method: str) -> str:
    name = "__main__" if method == "fork" else "__mp_main__"
    return f"42 {name}\ndone {method} more\n"


@pytest.fixture
def program() -> str:
    return PROGRAM.format(package="cmultiprocessing")


def test_script(start_method: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(program)
    assert run(tmp_path / "prog.py", start_method, "more") == (expected(start_method), "")


def test_script_by_relative_path(start_method: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(program.replace("ctx =", "os.chdir('/'); ctx ="))
    assert run("prog.py", start_method, "more", cwd=tmp_path) == (expected(start_method), "")


def test_script_without_suffix(start_method: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "prog").write_text(program)
    assert run(tmp_path / "prog", start_method, "more") == (expected(start_method), "")


def test_module(start_method: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "prog.py").write_text(program.replace("import os, sys", "import os, sys\nfrom . import prog"))
    assert run("-m", "pkg.prog", start_method, "more", cwd=tmp_path) == (expected(start_method), "")


def test_command_line(start_method: str, program: str) -> None:
    """Nothing can be imported there; what lives elsewhere still runs."""
    code = (
        "import sys, cmultiprocessing as mp; process = mp.get_context(sys.argv[1]).Process(target=print, args=('hi',));"
        "process.start(); process.join(); print(process.exitcode)"
    )
    assert run("-c", code, start_method) == ("hi\n0\n", "")


@pytest.mark.parametrize("kind", ["directory", "zip"])
def test_directory_and_zip(start_method: str, kind: str, program: str, tmp_path: Path) -> None:
    """Their __main__ is not imported again, as in the standard library: what it needs stands in a module beside."""
    main = "from prog import *\nimport prog, runpy\nif __name__ == '__main__': prog.go()\n"
    module = program.replace('if __name__ == "__main__":', "def go():")
    target = tmp_path / "app"
    if kind == "directory":
        target.mkdir()
        (target / "__main__.py").write_text(main)
        (target / "prog.py").write_text(module)
    else:
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("__main__.py", main)
            archive.writestr("prog.py", module)
    assert run(target, start_method, "more") == (f"42 prog\ndone {start_method} more\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_missing_guard_is_one_clear_error(method: str, tmp_path: Path) -> None:
    """gh-116403, gh-132898: no recursion, no second traceback."""
    (tmp_path / "prog.py").write_text(
        "import cmultiprocessing as mp\n"
        f"process = mp.get_context({method!r}).Process(target=print)\n"
        "process.start(); process.join(); print(process.exitcode)\n"
    )
    out, err = run(tmp_path / "prog.py")
    assert out == "1\n"
    assert err.count("Traceback") == 1
    assert "RuntimeError: A process cannot be started while this child process still imports" in err
    assert "if __name__ == '__main__':" in err


def send_flags(connection: Any) -> None:
    connection.send((tuple(sys.flags), sys.warnoptions, dict(sys._xoptions)))


FLAGS = """
import sys
sys.path.insert(0, {root!r})
import cmultiprocessing as mp
from tests.test_spawn import send_flags
ctx = mp.get_context(sys.argv[1])
receiver, sender = ctx.Pipe(False)
process = ctx.Process(target=send_flags, args=(sender,))
process.start()
seen = receiver.recv()
process.join()
assert seen == (tuple(sys.flags), sys.warnoptions, dict(sys._xoptions)), seen
"""


@pytest.mark.parametrize(
    "options",
    [[], ["-O"], ["-OO", "-B"], ["-X", "dev"], ["-b", "-W", "error::SyntaxWarning"], ["-q", "-s"]],
)
def test_flags_of_children(method_without_fork: str, options: list[str]) -> None:
    run(*options, "-c", FLAGS.format(root=str(ROOT)), method_without_fork)


@pytest.mark.parametrize("options", [["-E"], ["-I"], ["-S"], ["-I", "-S"]])
def test_the_package_is_found_without_the_environment(method_without_fork: str, options: list[str]) -> None:
    """Neither PYTHONPATH nor site-packages: the child is told where the package is."""
    code = (
        f"import sys; sys.path.append({LIBRARY!r}); import cmultiprocessing as mp\n"
        "process = mp.get_context(sys.argv[1]).Process(target=print, args=('hi',)); process.start(); process.join()"
    )
    assert run(*options, "-c", code, method_without_fork) == ("hi\n", "")


@pytest.fixture(params=["spawn", "forkserver"])
def method_without_fork(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_preparation_data_may_be_extended(mp: Any, monkeypatch: Any, capfd: Any) -> None:
    """Coverage tools put objects there whose unpickling switches them on."""
    from cmultiprocessing import spawn

    original = spawn.get_preparation_data
    monkeypatch.setattr(spawn, "get_preparation_data", lambda name: {**original(name), "stowaway": Stowaway()})
    process = mp.get_context("spawn").Process(target=print, args=("run",))
    process.start()
    process.join()
    assert capfd.readouterr().out == "stowaway\nrun\n"


class Stowaway:
    def __reduce__(self) -> Any:
        return print, ("stowaway",)


def test_executable(mp: Any, monkeypatch: Any) -> None:
    from cmultiprocessing import spawn

    before = spawn.get_executable()
    assert before == os.fsencode(sys.executable)
    try:
        for path in ("/nowhere/python", b"/nowhere/python", Path("/nowhere/python")):
            mp.set_executable(path)
            assert spawn.get_command_line(pipe_handle=3)[0] == b"/nowhere/python"
        process = mp.get_context("spawn").Process(target=print)
        process.start()  # it cannot be seen from here that there is no such program
        process.join()
        assert process.exitcode not in (0, None)
        mp.set_executable(None)
        with pytest.raises(RuntimeError, match="set_executable"):
            mp.get_context("spawn").Process(target=print).start()
    finally:
        mp.set_executable(before)


FROZEN = """
import sys
sys.frozen = True
sys.executable = {launcher!r}
import cmultiprocessing as mp

def work(connection):
    connection.send((__name__, sys.frozen))

if __name__ == "__main__":
    mp.freeze_support()
    ctx = mp.get_context(sys.argv[1])
    receiver, sender = ctx.Pipe(False)
    for _ in range(2):
        process = ctx.Process(target=work, args=(sender,))
        process.start()
        print(*receiver.recv())
        process.join()
        assert process.exitcode == 0
"""


def test_frozen_program(start_method: str, tmp_path: Path) -> None:
    """Its executable takes no -c: it is the program itself, which children and the fork server have to run."""
    launcher, prog = tmp_path / "launcher", tmp_path / "prog.py"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {prog} "$@"\n')
    launcher.chmod(0o755)
    prog.write_text(FROZEN.format(launcher=str(launcher)))
    assert run(prog, start_method) == ("__main__ True\n" * 2, "")


def test_command_line_shape() -> None:
    """Freezers look for exactly this."""
    from cmultiprocessing import spawn

    *_, option, statement, mark = spawn.get_command_line(pipe_handle=7)
    assert (option, mark) == ("-c", "--multiprocessing-fork")
    assert str(statement).endswith("from cmultiprocessing.spawn import spawn_main; spawn_main(pipe_handle=7)")


# --- python -m cmultiprocessing ------------------------------------------------------------------


ANNOTATED = """
import multiprocessing
import cmultiprocessing as mp

def work(value: int) -> None:
    print(work.__annotations__["value"])

if __name__ == "__main__":
    work(0)
    process = mp.get_context("spawn").Process(target=work, args=(0,))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("alias", [False, True])
def test_source_is_compiled_without_the_packages_own_future(alias: bool, tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(ANNOTATED)
    command = ["-m", "cmultiprocessing"] if alias else []
    assert run(*command, tmp_path / "prog.py") == ("<class 'int'>\n" * 2, "")


def test_alias_for_a_script(start_method: str, tmp_path: Path) -> None:
    program = PROGRAM.format(package="multiprocessing").replace(
        "def work(connection, value):",
        "import multiprocessing.connection\n"
        "def work(connection, value):\n"
        "    import cmultiprocessing, multiprocessing.queues\n"
        "    assert multiprocessing is cmultiprocessing\n"
        "    assert multiprocessing.queues is cmultiprocessing.queues\n"
        "    assert multiprocessing.queues.__spec__.name == 'cmultiprocessing.queues'\n",
    )
    (tmp_path / "prog.py").write_text(program)
    assert run("-m", "cmultiprocessing", tmp_path / "prog.py", start_method, "more") == (expected(start_method), "")


def test_alias_for_a_module_and_a_statement(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text("import multiprocessing, sys; print(multiprocessing.__name__, sys.argv[1:])")
    assert run("-m", "cmultiprocessing", "-m", "prog", "x", cwd=tmp_path) == ("cmultiprocessing ['x']\n", "")
    code = "import multiprocessing.pool as m, sys; print(m.__name__, sys.argv)"
    assert run("-m", "cmultiprocessing", "-c", code, "x") == ("cmultiprocessing.pool ['-c', 'x']\n", "")


def test_alias_usage() -> None:
    assert "usage" in run("-m", "cmultiprocessing", "--help")[0]
    assert "usage" in run("-m", "cmultiprocessing", code=1)[1]
    assert "No module named 'multiprocessing.nowhere'" in run(
        "-m", "cmultiprocessing", "-c", "import multiprocessing.nowhere", code=1
    )[1]


def test_processes_have_their_names_in_log_records(start_method: str, tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(
        "import sys, logging, cmultiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    mp.log_to_stderr(logging.INFO)\n"
        "    p = mp.get_context(sys.argv[1]).Process(target=print, name='Logger'); p.start(); p.join()\n"
    )
    _, err = run(tmp_path / "prog.py", start_method)
    lines = err.splitlines()
    for line in ("[INFO/Logger] child process calling self.run()", "[INFO/Logger] process exiting with exitcode 0",
                 "[INFO/MainProcess] process shutting down"):  # fmt: skip
        assert lines.count(line) == 1
