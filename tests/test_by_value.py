# SPDX-License-Identifier: PSF-2.0
"""Functions and classes of a main module that children cannot import."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.programs import environment, run_program, run_python

METHODS = ("spawn", "forkserver")

# Written so that it can be typed at a prompt: an empty line ends each block.
DEFINITIONS = '''
import abc, contextlib, dataclasses, enum, functools, os, collections, sys, typing
import xml.dom.minidom
import cmultiprocessing as mp

factor = 3

def helper(value):
    return value * factor

def work(value, *, more=1):
    return helper(value) + more

def closed_over(start):
    state = [start]
    def add(value):
        state.append(value)
        return sum(state)
    return add

def countdown(value):
    return "lift-off" if value == 0 else countdown(value - 1)

@functools.lru_cache(maxsize=4)
def cached(value):
    return helper(value)

class Base(abc.ABC):
    """Words."""
    count = 0
    @abc.abstractmethod
    def name(self): ...
    def greet(self):
        return f"hello {self.name()}"

class Child(Base):
    __slots__ = ("first",)
    def __init__(self, first):
        self.first = first
    def name(self):
        return self.first
    def greet(self):
        return super().greet() + "!"
    @property
    def loud(self):
        return self.first.upper()
    @classmethod
    def make(cls):
        return cls("made")
    @staticmethod
    def static(value):
        return helper(value)
    @functools.cached_property
    def never(self):
        return 0
    def __eq__(self, other):
        return type(self) is type(other) and self.first == other.first
    def __hash__(self):
        return 1

@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)

class Colour(enum.Enum):
    RED = 1
    GREEN = enum.auto()
    def __str__(self):
        return self.name.lower()

class Bits(enum.Flag):
    A = 1
    B = 2

Pair = collections.namedtuple("Pair", "left right")

class Typed(typing.NamedTuple):
    left: int
    right: str = "r"

class Odd(LookupError):
    pass

def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)
    return wrapper

@doubled
def wrapped(value):
    return helper(value)

@contextlib.contextmanager
def managed(value):
    yield value

def parse(text):
    return xml.dom.minidom.parseString(text).documentElement.tagName

def everything(queue, child, point, colour, pair, function, bits, typed):
    assert isinstance(child, Child) and child == Child("x") and Child.make().first == "made"
    assert child.greet() == "hello x!" and child.loud == "X" and Child.static(2) == 6
    assert Base.__doc__ == "Words."
    try:
        Base()
    except TypeError:
        pass
    else:
        raise AssertionError("abstract")
    assert point < Point(9) and Point(1).y == [] and dataclasses.asdict(Point(1)) == {"x": 1, "y": []}
    assert dataclasses.replace(point, x=5).x == 5
    assert colour is Colour.GREEN and Colour(1) is Colour.RED and str(colour) == "green"
    assert bits == Bits.A | Bits.B
    assert pair == Pair(1, 2) and pair._replace(left=3).left == 3 and typed == Typed(1)
    assert work(2) == 7 and work(2, more=2) == 8 and countdown(3) == "lift-off" and cached(1) == cached(1) == 3
    with managed(5) as value:
        assert value == 5 and wrapped(1) == 6
    assert function(4) == 5 and parse("<a/>") == "a"
    assert sys.modules["__main__"].Child is Child and Child.__module__ == "__main__"
    queue.put((child, point, colour, pair, bits, typed, Child, work))
    queue.put(Odd("raised there"))

def go(method):
    ctx = mp.get_context(method)
    queue, tasks = ctx.Queue(), ctx.Queue()
    sent = Child("x"), Point(1, [2]), Colour.GREEN, Pair(1, 2), closed_over(1), Bits.A | Bits.B, Typed(1)
    process = ctx.Process(target=everything, args=(queue, *sent))
    process.start()
    child, point, colour, pair, bits, typed, cls, function = queue.get(timeout=30)
    assert cls is Child and child == Child("x") and point == Point(1, [2]) and colour is Colour.GREEN
    assert bits == Bits.A | Bits.B and type(typed) is Typed and function is work
    assert type(queue.get(timeout=30)) is Odd
    process.join()
    assert process.exitcode == 0, process
    worker = ctx.Process(target=serve, args=(tasks, queue))
    worker.start()
    for value in range(3):
        tasks.put((later, value))
    tasks.put((lambda value: value + factor, 1))
    tasks.put(None)
    print(*(queue.get(timeout=30) for _ in range(4)))
    worker.join()
    process = ctx.Process(target=below, args=(queue, method))
    process.start()
    print(*queue.get(timeout=30))
    process.join()
    print("done")

def later(value):
    global calls
    calls = calls + 1
    return helper(value) + calls

calls = 100

def serve(tasks, queue):
    while (task := tasks.get(timeout=30)) is not None:
        function, value = task
        queue.put(function(value))

def below(queue, method):
    process = mp.get_context(method).Process(target=below_that, args=(queue, Child("deep")))
    process.start()
    process.join()

def below_that(queue, child):
    queue.put((child, work(1)))

Child.__repr__ = lambda self: f"<{self.first}>"
'''

EXPECTED = "101 105 109 4\n<deep> 4\ndone\n"


@pytest.mark.parametrize("method", METHODS)
def test_command_line(method: str) -> None:
    assert run_python("-c", DEFINITIONS + "go(sys.argv[1])", method) == (0, EXPECTED, "")


@pytest.mark.parametrize("method", METHODS)
def test_standard_input(method: str) -> None:
    assert run_python("-", method, input=DEFINITIONS + "go(sys.argv[1])") == (0, EXPECTED, "")


@pytest.mark.parametrize("method", METHODS)
def test_prompt(method: str) -> None:
    """With -i input that is not a terminal is treated as one."""
    text = DEFINITIONS + "\ngo(sys.argv[1])\n"
    code, out, err = run_python("-i", "-q", "-", method, input=text, env=environment(PYTHON_BASIC_REPL="1"))
    assert (code, out) == (0, EXPECTED), err
    assert "Error" not in err


NOTEBOOK = """
import linecache, sys, types
user = types.ModuleType("__main__")
user.__builtins__ = __builtins__
sys.modules["__main__"] = user
for number, cell in enumerate(CELLS.split("\\n\\n")):
    exec(compile(cell, f"<ipython-input-{number}>", "exec"), user.__dict__)
user.go(sys.argv[1])
"""


@pytest.mark.parametrize("method", METHODS)
def test_notebook(method: str, tmp_path: Path) -> None:
    """As a kernel does it: a main module without a file, and a cell at a time."""
    text = NOTEBOOK.replace("CELLS", repr(DEFINITIONS.strip().replace("\n    \n", "\n")))
    assert run_program(text, method, folder=tmp_path) == (0, EXPECTED, "")


@pytest.mark.parametrize("kind", ["directory", "zip", "package"])
@pytest.mark.parametrize("method", METHODS)
def test_main_that_is_never_imported(method: str, kind: str, tmp_path: Path) -> None:
    main = DEFINITIONS + "\nif __name__ != '__main__': raise RuntimeError('imported again')\ngo(sys.argv[1])\n"
    app = tmp_path / "app"
    if kind == "zip":
        with zipfile.ZipFile(app, "w") as archive:
            archive.writestr("__main__.py", main)
    else:
        app.mkdir()
        (app / "__main__.py").write_text(main)
        (app / "__init__.py").touch()
    command = ["-m", "app"] if kind == "package" else [str(app)]
    assert run_python(*command, method, cwd=tmp_path) == (0, EXPECTED, "")


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_sent_is_an_error_of_start(method: str) -> None:
    """A global that the function uses, and that means nothing elsewhere."""
    program = (
        "import sys, threading, cmultiprocessing as mp\nlock = threading.Lock()\ndef work():\n    with lock: pass\n"
        "mp.get_context(sys.argv[1]).Process(target=work).start()"
    )
    code, out, err = run_python("-c", program, method)
    assert (code, out) == (1, "")
    assert "TypeError: cannot pickle '_thread.lock' object" in err
    assert "'SpawnProcess-1'" in err or "'ForkServerProcess-1'" in err


def test_scripts_are_not_concerned(tmp_path: Path) -> None:
    """Their children import the main module, as documented: nothing travels by value, and a lambda is refused."""
    program = (
        "import pickle, cmultiprocessing as mp\nfrom cmultiprocessing.reduction import ForkingPickler\n"
        "if __name__ == '__main__':\n"
        "    try: mp.get_context('spawn').Process(target=lambda: 0).start()\n"
        "    except (pickle.PicklingError, AttributeError):\n"
        "        print('refused', hasattr(ForkingPickler, 'reducer_override'))\n"
    )
    assert run_program(program, folder=tmp_path) == (0, "refused False\n", "")


@pytest.mark.parametrize("method", METHODS)
def test_script_that_is_gone(method: str, tmp_path: Path) -> None:
    program = DEFINITIONS + "if __name__ == '__main__':\n    os.remove(__file__)\n    go(sys.argv[1])\n"
    assert run_program(program, method, folder=tmp_path) == (0, EXPECTED, "")


def test_code_of_another_version_is_refused() -> None:
    from cmultiprocessing import _by_value

    with pytest.raises(RuntimeError, match="another version"):
        _by_value._make_function("token of nobody", b"xxxx", b"", 0, None)
