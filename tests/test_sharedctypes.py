# SPDX-License-Identifier: PSF-2.0
"""ctypes objects in shared memory: what they are, what their locks do, and how they travel."""

from __future__ import annotations

import contextlib
import copy as copying
import ctypes
import gc
import importlib
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from cmultiprocessing import heap, sharedctypes
from cmultiprocessing.reduction import ForkingPickler

from tests.support.scene import PATIENCE, Crew

INTEGERS = "bBhHiIlLqQ"
NUMBERS = INTEGERS + "fd"


@pytest.fixture(scope="module", autouse=True)
def what_stays(ours: ModuleType, stdlib: ModuleType) -> None:
    """The standard library keeps a descriptor for its shared memory, NumPy a thread, from the first use on."""
    stdlib.RawArray("B", 1 << 21)
    with contextlib.suppress(ImportError):
        importlib.import_module("numpy")


class Point(ctypes.Structure):
    """As in the documentation."""

    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


class Box(Point):
    """A structure with fields of its base, of an array, of a structure."""

    _fields_ = [("corners", ctypes.c_int * 4), ("origin", Point)]


class Either(ctypes.Union):
    _fields_ = [("number", ctypes.c_uint32), ("bytes", ctypes.c_ubyte * 4)]


class Celsius(ctypes.c_double):
    """A subclass that sees its value differently. ctypes' metaclass cannot do with a bare super()."""

    @property
    def value(self) -> float:
        return float(ctypes.c_double.value.__get__(self)) - 273.0  # type: ignore[attr-defined]

    @value.setter
    def value(self, degrees: float) -> None:
        ctypes.c_double.value.__set__(self, degrees + 273.0)  # type: ignore[attr-defined]


Three: Any = ctypes.c_int * 3


class Doubling(Three):  # type: ignore[misc]
    """An array that answers with something else than what it holds."""

    def __getitem__(self, key: Any) -> Any:
        return Three.__getitem__(self, key) * 2


# --- what they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(sharedctypes.typecode_to_type))
def test_objects_of_type_codes_are_real_ctypes_objects(mp: ModuleType, code: str) -> None:
    type_ = sharedctypes.typecode_to_type[code]
    for obj in (mp.RawValue(code), mp.Value(code).get_obj(), mp.Value(code, lock=False)):
        assert type(obj) is type_
        assert obj.value == type_().value
    for array in (mp.RawArray(code, 3), mp.Array(code, 3).get_obj(), mp.Array(code, 3, lock=False)):
        assert isinstance(array, ctypes.Array)
        assert (type(array)._type_, len(array)) == (type_, 3)


def test_type_codes_are_those_of_the_standard_library(stdlib: ModuleType) -> None:
    from multiprocessing import sharedctypes as standard

    assert standard.typecode_to_type == sharedctypes.typecode_to_type


def test_arguments_of_the_type(both: ModuleType) -> None:
    assert both.RawValue("i", 7).value == 7
    assert both.RawValue(ctypes.c_char, b"x").value == b"x"
    point = both.RawValue(Point, 1.5, 2.5)
    assert (point.x, point.y) == (1.5, 2.5)
    assert [p.x for p in both.RawArray(Point, [(1, 2), (3, 4)])] == [1.0, 3.0]
    assert both.RawArray("c", b"hello").value == b"hello"
    assert both.RawArray("u", "hello").value == "hello"
    assert list(both.RawArray("h", range(5))) == [0, 1, 2, 3, 4]
    assert both.RawValue(ctypes.c_bool, True).value is True
    assert both.RawArray(ctypes.c_int * 2, [(1, 2), (3, 4)])[1][0] == 3


def test_constructors_of_classes_run(both: ModuleType) -> None:
    class Counted(ctypes.Structure):
        _fields_ = [("n", ctypes.c_int)]

        def __init__(self, n: int = 5) -> None:
            super().__init__(n * 10)

    assert both.RawValue(Counted).n == 50
    assert both.RawValue(Counted, 2).n == 20


def test_buffers_of_objects(both: ModuleType) -> None:
    array = both.Array("d", [1.0, 2.0, 3.0])
    view = memoryview(array.get_obj())
    assert (view.nbytes, view.shape, view.readonly) == (24, (3,), False)
    view.cast("B").cast("d")[1] = 9.0
    assert array[:] == [1.0, 9.0, 3.0]


def test_numpy_sees_the_memory_itself(both: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    array = both.Array("i", 6)
    seen = numpy.frombuffer(array.get_obj(), dtype=numpy.int32)
    seen += numpy.arange(6, dtype=numpy.int32)
    assert array[:] == [0, 1, 2, 3, 4, 5]
    assert numpy.ctypeslib.as_array(array.get_obj()).tolist() == array[:]
    assert list(both.RawArray("d", seen)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100, 2031, 2032, 2033, 5000, 130_000, 140_000, 1_000_000])
def test_new_memory_is_zero_where_it_was_used_before(mp: ModuleType, size: int) -> None:
    for _ in range(4):
        array = mp.RawArray("B", size)
        assert bytes(array) == bytes(size)
        ctypes.memset(array, 0xFF, size)
        del array


@pytest.mark.parametrize("take", [memoryview, lambda array: array[1], lambda array: memoryview(array[0])])
def test_item_55_a_view_keeps_the_memory(mp: ModuleType, take: Callable[[Any], Any]) -> None:
    """Views of freed memory show what others write there now (gh-85839)."""
    array = mp.RawArray(Point, [(1, 2), (3, 4)])
    view = take(array)
    expected = bytes(view)
    del array
    gc.collect()
    others = [mp.RawArray("B", b"\xee" * 32) for _ in range(300)]
    assert bytes(view) == expected
    del others


def test_item_55_numpy_keeps_the_memory(mp: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    seen = numpy.frombuffer(mp.Array("q", range(4)).get_obj(), dtype=numpy.int64)
    gc.collect()
    others = [mp.RawArray("q", [-1] * 4) for _ in range(300)]
    assert seen.tolist() == [0, 1, 2, 3]
    del others


def test_memory_is_used_again(mp: ModuleType) -> None:
    """The next object of that size lies where the dropped one was."""
    places = {ctypes.addressof(mp.RawValue("q")) for _ in range(50)}
    assert len(places) <= 2


def test_objects_are_garbage_collected(mp: ModuleType) -> None:
    value = mp.Value("i")
    value.itself = value
    seen = weakref.ref(value)
    del value
    gc.collect()
    assert seen() is None


# --- with a lock ---------------------------------------------------------------------------------


def test_default_lock_is_an_rlock_of_ours(mp: ModuleType) -> None:
    for obj in (mp.Value("i"), mp.Array("i", 1), mp.Value("i", lock=None), sharedctypes.Value("i")):
        assert type(obj.get_lock()) is type(mp.RLock())
        with obj.get_lock(), obj:
            assert obj.get_lock()._count() == 2


def test_locks_that_are_given(mp: ModuleType) -> None:
    for lock in (mp.Lock(), mp.RLock(), threading.Lock(), threading.RLock()):
        value, array = mp.Value("i", 4, lock=lock), mp.Array("i", [4], lock=lock)
        assert value.get_lock() is lock
        assert array.get_lock() is lock
        value.value += 1
        array[0] += 1
        assert (value.value, array[0], array[:], value.add(2)) == (5, 5, [5], 7)
        with value:
            assert not lock.acquire(False) or lock.release() is None
        assert lock.acquire(False)
        lock.release()


@pytest.mark.parametrize("bad", ["a name", 7, object()])
def test_what_is_no_lock_is_refused(both: ModuleType, bad: Any) -> None:
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        both.Value("i", lock=bad)
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        both.Array("i", 2, lock=bad)


class Recorder:
    """A lock that tells what was done with it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def acquire(self, *args: Any) -> bool:
        self.calls.append("acquire")
        return True

    def release(self) -> None:
        self.calls.append("release")


def refused(call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        call(*args)


ACCESSES: list[Callable[[Any, Any, Any, Any], Any]] = [
    lambda v, a, s, p: v.value,
    lambda v, a, s, p: setattr(v, "value", 3),
    lambda v, a, s, p: v.add(1),
    lambda v, a, s, p: v.exchange(1),
    lambda v, a, s, p: v.compare_exchange(1, 2),
    lambda v, a, s, p: a[0],
    lambda v, a, s, p: a[-1],
    lambda v, a, s, p: a[:],
    lambda v, a, s, p: a.__setitem__(0, 1),
    lambda v, a, s, p: a.__setitem__(slice(0, 2), [1, 2]),
    lambda v, a, s, p: s.value,
    lambda v, a, s, p: s.raw,
    lambda v, a, s, p: setattr(s, "value", b"x"),
    lambda v, a, s, p: setattr(s, "raw", b"x"),
    lambda v, a, s, p: p.x,
    lambda v, a, s, p: setattr(p, "y", 1.0),
    lambda v, a, s, p: refused(setattr, v, "value", "text"),
    lambda v, a, s, p: refused(a.__setitem__, 0, "text"),
    lambda v, a, s, p: refused(setattr, s, "value", b"too long"),
]


@pytest.mark.parametrize("access", ACCESSES)
def test_every_access_takes_the_lock_once(mp: ModuleType, access: Callable[[Any, Any, Any, Any], Any]) -> None:
    lock = Recorder()
    access(
        mp.Value("i", lock=lock), mp.Array("i", 2, lock=lock), mp.Array("c", 2, lock=lock), mp.Value(Point, lock=lock)
    )
    assert lock.calls == ["acquire", "release"]


@pytest.mark.parametrize("access", ACCESSES)
def test_every_access_leaves_the_lock_free(mp: ModuleType, access: Callable[[Any, Any, Any, Any], Any]) -> None:
    lock = mp.Lock()
    access(
        mp.Value("i", lock=lock), mp.Array("i", 2, lock=lock), mp.Array("c", 2, lock=lock), mp.Value(Point, lock=lock)
    )
    assert lock.acquire(False)


def test_access_waits_for_the_lock(mp: ModuleType) -> None:
    value = mp.Value("i", 1)
    seen = []
    with value.get_lock():
        reader = threading.Thread(target=lambda: seen.append(value.value))
        reader.start()
        reader.join(0.1)
        assert not seen
        value.value = 2
    reader.join(PATIENCE)
    assert seen == [2]


def test_acquire_and_release_are_the_locks(mp: ModuleType) -> None:
    value = mp.Value("i")
    assert value.acquire(timeout=1)
    assert value.get_lock()._is_mine()
    value.release()
    with pytest.raises(AssertionError):
        value.release()


def test_repr(both: ModuleType) -> None:
    assert repr(both.Value("i", 5)) == "<Synchronized wrapper for c_int(5)>"
    assert repr(both.Array("i", 2)).startswith("<SynchronizedArray wrapper for <")


def test_classes(mp: ModuleType) -> None:
    s = sharedctypes
    assert type(mp.Value("i")) is s.Synchronized
    assert type(mp.Array("i", 1)) is s.SynchronizedArray
    assert type(mp.Array("c", 1)) is s.SynchronizedString
    assert type(mp.Array("u", 1)) is s.SynchronizedArray
    assert issubclass(s.SynchronizedString, s.SynchronizedArray)
    for class_ in (s.Synchronized, s.SynchronizedArray, s.SynchronizedString, type(mp.Value(Point))):
        assert issubclass(class_, s.SynchronizedBase)
        assert class_.__module__ == "cmultiprocessing.sharedctypes"
    assert type(mp.Value(Point)).__name__ == "SynchronizedPoint"
    assert s.class_cache[Point] is type(mp.Value(Point))


def test_subclasses_in_python(mp: ModuleType) -> None:
    class Loud(sharedctypes.Synchronized):  # type: ignore[misc, valid-type]
        def shout(self) -> int:
            return int(self.value) * 100

    assert Loud(mp.RawValue("i", 3)).shout() == 300


def test_synchronized(both: ModuleType) -> None:
    module = sys.modules[f"{both.__name__}.sharedctypes"] if both.__name__ == "cmultiprocessing" else None
    if module is None:
        from multiprocessing import sharedctypes as module  # type: ignore[no-redef]
    lock = both.RLock()
    wrapped = module.synchronized(both.RawValue("d", 1.5), lock)
    assert (wrapped.value, wrapped.get_lock()) == (1.5, lock)
    private = module.synchronized(ctypes.c_int(4))
    private.value += 1
    assert private.value == 5
    with pytest.raises(AssertionError, match="object already synchronized"):
        module.synchronized(wrapped)


def test_what_is_no_ctypes_object_is_refused() -> None:
    with pytest.raises(TypeError, match="'list' is not a ctypes object"):
        sharedctypes.synchronized([])


def test_init_rules() -> None:
    with pytest.raises(RuntimeError, match="called twice"):
        sharedctypes.Value("i").__init__(ctypes.c_int())
    for call in (lambda v: v.value, lambda v: v.add(1), lambda v: v.get_lock(), lambda v: v.__enter__(), repr):
        with pytest.raises(RuntimeError, match="was not called"):
            call(sharedctypes.Synchronized.__new__(sharedctypes.Synchronized))


# --- structures, unions, arrays ------------------------------------------------------------------


def test_fields_of_structures_and_unions(mp: ModuleType) -> None:
    box = mp.Value(Box)
    box.x = 1.5
    box.corners[2] = 7
    box.origin.y = 2.5
    assert (box.x, list(box.corners), box.origin.y) == (1.5, [0, 0, 7, 0], 2.5)
    assert (box.get_obj().x, box.get_obj().corners[2]) == (1.5, 7)
    either = mp.Value(Either)
    either.number = 0x04030201
    assert list(either.bytes) == ([1, 2, 3, 4] if sys.byteorder == "little" else [4, 3, 2, 1])


def test_arrays_of_structures(both: ModuleType) -> None:
    points = both.Array(Point, [(1, 2), (3, 4)])
    points[1].x *= 10
    points[0] = Point(5, 6)
    assert [(p.x, p.y) for p in points] == [(5.0, 6.0), (30.0, 4.0)]
    assert len(points) == 2


def test_the_word_of_a_subclass_counts(mp: ModuleType) -> None:
    """What a class of the program does with its value or its items is done, not bypassed."""
    celsius = mp.Value(Celsius)
    celsius.value = 20.0
    assert celsius.value == pytest.approx(20.0)
    assert mp.Value(Celsius).value == -273.0
    array = sharedctypes.synchronized(mp.RawValue(Doubling, 1, 2, 3))
    assert (array[0], array[2]) == (2, 6)


def test_foreign_byte_order(mp: ModuleType) -> None:
    other = ctypes.c_int32.__ctype_be__ if sys.byteorder == "little" else ctypes.c_int32.__ctype_le__
    value = mp.Value(other, 1)
    assert value.value == 1
    assert bytes(value.get_obj()) == (1).to_bytes(4, "big" if sys.byteorder == "little" else "little")
    with pytest.raises(TypeError, match="machine's own kind"):
        value.add(1)


# --- numbers: as ctypes has them -----------------------------------------------------------------


GIVEN = [
    0, 1, -1, 127, 128, 255, 256, -129, 2**31, 2**32 + 5, -(2**63), 2**64 - 1, 2**70 + 3, True, 1.5, -0.0,
    float("inf"), 1e300, "text", b"x", None, ctypes.c_int(5), ctypes.c_double(2.5),
]  # fmt: skip


def outcome(store: Callable[[], Any], load: Callable[[], Any]) -> Any:
    """What storing ended in: the exception, or the value that is there then."""
    try:
        store()
    except Exception as error:
        return type(error), str(error)
    return type(load()), repr(load())


@pytest.mark.parametrize("code", NUMBERS)
def test_values_are_stored_as_ctypes_stores_them(mp: ModuleType, code: str) -> None:
    type_ = sharedctypes.typecode_to_type[code]
    for given in GIVEN:
        plain, row, value, array = type_(), (type_ * 3)(), mp.Value(code), mp.Array(code, 3)
        assert outcome(partial(setattr, value, "value", given), lambda v=value: v.value) == outcome(
            partial(setattr, plain, "value", given), lambda v=plain: v.value
        )
        assert outcome(partial(array.__setitem__, 1, given), lambda a=array: a[1]) == outcome(
            partial(row.__setitem__, 1, given), lambda a=row: a[1]
        )
        assert bytes(array.get_obj()) == bytes(row), "its neighbours are as they were"


def test_bool_char_and_wchar(both: ModuleType) -> None:
    flag, letter, wide = both.Value(ctypes.c_bool), both.Value("c", b"a"), both.Value("u", "ä")
    assert (flag.value, letter.value, wide.value) == (False, b"a", "ä")
    flag.value, letter.value, wide.value = 2, b"z", "ß"
    assert (flag.value, letter.value, wide.value) == (True, b"z", "ß")
    for bad in (b"ab", "a", 300):
        with pytest.raises((TypeError, ValueError)):
            letter.value = bad


SLICES = [
    slice(*bounds)
    for bounds in [(None,), (2,), (2, 5), (-3, None), (None, -2), (5, 2), (100,), (None, None, 2), (1, 8, 3),
                   (None, None, -1), (8, 1, -2), (-2, -9, -3), (0, 0), (3, 3, -1), (-100, 100)]
]  # fmt: skip


@pytest.mark.parametrize("code", NUMBERS + "cu")
def test_slices_are_those_of_ctypes(mp: ModuleType, code: str) -> None:
    items: Any = {"c": b"abcdefghij", "u": "abcdefghij"}.get(code, range(10))
    array = mp.Array(code, items)
    for part in SLICES:
        assert array[part] == array.get_obj()[part], part
        assert type(array[part]) is type(array.get_obj()[part])


def test_slices_of_booleans(mp: ModuleType) -> None:
    array = mp.Array(ctypes.c_bool, [1, 0, 1])
    assert array[:] == [True, False, True]
    assert array[::-2] == [True, True]


def test_large_slices(mp: ModuleType) -> None:
    array = mp.Array("d", range(100_000))
    assert array[:] == [float(i) for i in range(100_000)]
    assert array[99_999:0:-9_999] == [float(i) for i in range(99_999, 0, -9_999)]


def test_slices_are_assigned(both: ModuleType) -> None:
    array = both.Array("i", 6)
    array[1:4] = [1, 2, 3]
    array[4:] = (8, 9)
    assert array[:] == [0, 1, 2, 3, 8, 9]
    with pytest.raises(ValueError):
        array[0:2] = [1, 2, 3]
    with pytest.raises(TypeError):
        array[0:1] = ["x"]
    assert array[:] == [0, 1, 2, 3, 8, 9]


@pytest.mark.parametrize("index", [3, -4, 10**30, -(10**30), sys.maxsize, -sys.maxsize - 1])
def test_indices_out_of_range(both: ModuleType, index: int) -> None:
    array = both.Array("i", 3)
    with pytest.raises(IndexError):
        array[index]
    with pytest.raises(IndexError):
        array[index] = 1
    assert array[:] == [0, 0, 0]


def test_other_keys(mp: ModuleType) -> None:
    array = mp.Array("i", [5, 6])
    assert (array[True], array[-2]) == (6, 5)
    for bad in ("0", 1.0, None):
        with pytest.raises(TypeError):
            array[bad]
    with pytest.raises(TypeError):
        del array[0]


def test_iteration_and_membership(both: ModuleType) -> None:
    array = both.Array("h", [3, 1, 2])
    assert list(array) == [3, 1, 2]
    assert sorted(array) == [1, 2, 3]
    assert 2 in array
    assert list(reversed(array)) == [2, 1, 3]


def test_strings(both: ModuleType) -> None:
    text = both.Array("c", 10)
    text.value = b"hello"
    assert (text.value, text.raw, text[1], text[:3]) == (b"hello", b"hello\0\0\0\0\0", b"e", b"hel")
    text.raw = b"0123456789"
    text[0:2] = b"ab"
    assert text.value == b"ab23456789"
    text[2] = b"c"
    assert text[2] == b"c"
    with pytest.raises(ValueError):
        text.value = b"12345678901"


# --- ours: add, exchange, compare_exchange -------------------------------------------------------


@pytest.mark.parametrize("code", NUMBERS)
def test_add(mp: ModuleType, code: str) -> None:
    value = mp.Value(code, 5)
    assert value.add(3) == value.value == 8
    assert value.add(-7) == value.value == 1
    assert type(value.add(1)) is type(value.value)


@pytest.mark.parametrize("code", INTEGERS)
def test_integers_wrap_around_as_in_an_assignment(mp: ModuleType, code: str) -> None:
    for start, more in [(0, -1), (100, 2**64 + 5), (2**63 - 1, 1), (-1, 1)]:
        value, plain = mp.Value(code, start), sharedctypes.typecode_to_type[code](start)
        plain.value += more
        assert value.add(more) == plain.value == value.value


@pytest.mark.parametrize("code", NUMBERS)
def test_exchange(mp: ModuleType, code: str) -> None:
    value = mp.Value(code, 5)
    assert (value.exchange(7), value.value) == (5, 7)
    assert value.compare_exchange(5, 9) is False
    assert value.value == 7
    assert value.compare_exchange(7, 9) is True
    assert value.value == 9


def test_reals(mp: ModuleType) -> None:
    value, narrow = mp.Value("d", 0.5), mp.Value("f", 0.1)
    assert value.add(0.25) == 0.75
    assert value.compare_exchange(0.75, -0.0)
    assert value.compare_exchange(0.0, float("nan")), "0.0 is -0.0"
    assert not value.compare_exchange(float("nan"), 1.0), "nothing is NaN"
    assert narrow.compare_exchange(0.1, 0.2), "as a float has it"
    assert narrow.value == ctypes.c_float(0.2).value


@pytest.mark.parametrize("make", [
    lambda mp: mp.Value("c"), lambda mp: mp.Value("u"), lambda mp: mp.Value(ctypes.c_bool),
    lambda mp: mp.Value(ctypes.c_void_p), lambda mp: mp.Value(Celsius),
    lambda mp: sharedctypes.synchronized(ctypes.c_int(3)),
])  # fmt: skip
def test_what_is_no_number_cannot_be_added_to(mp: ModuleType, make: Callable[[Any], Any]) -> None:
    value = make(mp)
    before = value.value
    for call in (lambda: value.add(1), lambda: value.exchange(1), lambda: value.compare_exchange(0, 1)):
        with pytest.raises(TypeError, match="needs an integer or float"):
            call()
    assert value.value == before


@pytest.mark.parametrize("bad", [1.5, "1", None, 1j])
def test_what_cannot_be_added_is_refused(mp: ModuleType, bad: Any) -> None:
    value = mp.Value("i", 3)
    for call in (lambda: value.add(bad), lambda: value.exchange(bad), lambda: value.compare_exchange(bad, 1)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        value.compare_exchange(1)
    assert (value.value, value.get_lock()._count()) == (3, 0)


def count_up(counters: list[Any], rounds: int) -> None:
    for _ in range(rounds):
        for counter in counters:
            counter.add(1)
            with counter.get_lock():
                counter.value += 1
            while not counter.compare_exchange(seen := counter.value, seen + 1):
                pass


def test_no_addition_is_lost(ctx: Any, crew: Crew) -> None:
    """add(), += under the lock and compare_exchange() of many processes, mixed."""
    counters = [ctx.Value(code) for code in "HiqQfd"]
    children = [crew.start(ctx, count_up, counters, 500) for _ in range(3)]
    count_up(counters, 500)
    for child in children:
        crew.finish(child)
    assert [counter.value for counter in counters] == [4 * 3 * 500] * len(counters)


# --- copies --------------------------------------------------------------------------------------


def test_copy(both: ModuleType) -> None:
    if both.__name__ == "multiprocessing":
        from multiprocessing.sharedctypes import copy
    else:
        from cmultiprocessing.sharedctypes import copy
    box = both.RawValue(Box)
    box.x, box.corners[1] = 4.0, 7
    twin = copy(box)
    box.x = box.corners[1] = 0
    assert (type(twin), twin.x, list(twin.corners)) == (Box, 4.0, [0, 7, 0, 0])
    array = copy(both.RawArray("i", [1, 2, 3]))
    assert list(array) == [1, 2, 3]
    assert copy(ctypes.c_int(9)).value == 9


# --- journeys ------------------------------------------------------------------------------------


def change_all(value: Any, array: Any, raw: Any, row: Any, point: Any, text: Any, box: Any) -> None:
    with value.get_lock():
        value.value += 1
    array[1:3] = [8, 9]
    raw.value *= 2
    for i in range(len(row)):
        row[i] += i
    point.x, point.y = point.y, point.x
    text.value = text.value.upper()
    box.corners[3] = 4


def make_all(ctx: Any) -> list[Any]:
    return [
        ctx.Value("i", 1), ctx.Array("q", 4), ctx.RawValue("d", 1.5), ctx.RawArray("h", 3), ctx.Value(Point, 1, 2),
        ctx.Array("c", b"hello"), ctx.RawValue(Box),
    ]  # fmt: skip


def check_all(everything: list[Any]) -> None:
    value, array, raw, row, point, text, box = everything
    assert (value.value, array[:], raw.value, list(row)) == (2, [0, 8, 9, 0], 3.0, [0, 1, 2])
    assert (point.x, point.y, text.value, box.corners[3]) == (2.0, 1.0, b"HELLO", 4)


def test_children_change_what_they_are_given(ctx: Any, crew: Crew) -> None:
    everything = make_all(ctx)
    crew.finish(crew.start(ctx, change_all, *everything))
    check_all(everything)


def change_from_queue(q: Any) -> None:
    change_all(*q.get(timeout=PATIENCE))


def test_queues_carry_them(ctx: Any, crew: Crew) -> None:
    everything, q = make_all(ctx), ctx.Queue()
    q.put(everything)
    crew.finish(crew.start(ctx, change_from_queue, q))
    check_all(everything)


def change_from_pipe(connection: Any) -> None:
    change_all(*connection.recv())
    connection.close()


def test_pipes_carry_them(ctx: Any, crew: Crew) -> None:
    here, there = ctx.Pipe()
    everything = make_all(ctx)
    here.send(everything)
    crew.finish(crew.start(ctx, change_from_pipe, there))
    check_all(everything)
    here.close()
    there.close()


def test_pickles_name_the_place(mp: ModuleType) -> None:
    """Under any pickler a synchronized object arrives as itself, not as a copy."""
    value = mp.Value("i", 5)
    for twin in (pickle.loads(pickle.dumps(value)), ForkingPickler.loads(ForkingPickler.dumps(value))):
        twin.value += 1
        twin.add(1)
    assert value.value == 9
    raw = mp.RawValue("i", 5)
    twin = ForkingPickler.loads(ForkingPickler.dumps(raw))
    twin.value = 6
    assert (raw.value, type(twin)) == (6, ctypes.c_int)


def test_parts_of_objects_travel(mp: ModuleType) -> None:
    points = mp.RawArray(Point, [(1, 2), (3, 4)])
    part = ForkingPickler.loads(ForkingPickler.dumps(points[1]))
    part.x = 30
    assert points[1].x == 30.0


def test_empty_arrays_travel(mp: ModuleType) -> None:
    for array in (mp.RawArray("i", 0), mp.Array("i", 0)):
        twin = ForkingPickler.loads(ForkingPickler.dumps(array))
        assert (len(array), len(twin), twin[:]) == (0, 0, [])


def test_private_objects_of_the_same_types_are_copied(mp: ModuleType) -> None:
    """The reducers know ours from the program's own."""
    mp.RawArray("i", 2)
    for obj in (ctypes.c_int(5), Point(1, 2), (ctypes.c_int * 2)(1, 2)):
        twin = ForkingPickler.loads(ForkingPickler.dumps(obj))
        assert type(twin) is type(obj)
        assert bytes(twin) == bytes(obj)
        assert ctypes.addressof(twin) != ctypes.addressof(obj)
    wrapped = sharedctypes.synchronized(ctypes.c_int(5))
    assert ForkingPickler.loads(ForkingPickler.dumps(wrapped)).value == 5
    assert copying.copy(ctypes.c_int(5)).value == 5


def test_a_bad_pickle_is_not_believed(mp: ModuleType) -> None:
    block = heap.BufferWrapper(100)
    rebuild, (type_, ticket, size) = block.__reduce__()  # type: ignore[misc]
    assert size == 100
    with pytest.raises(ValueError, match="10000000 bytes"):
        rebuild(type_, ticket, 10_000_000)
    with pytest.raises(ValueError, match="-1 bytes"):
        rebuild(type_, ticket, -1)
    with pytest.raises(ValueError, match="not the ticket"):
        rebuild(type_, b"short", 100)
    with pytest.raises(ValueError):
        sharedctypes.rebuild_ctype(ctypes.c_int, heap.BufferWrapper(40), 11)
    twin = rebuild(type_, ticket, 100)
    assert twin.size == 100


# --- heap ----------------------------------------------------------------------------------------


def test_buffer_wrapper(ours: ModuleType) -> None:
    block = heap.BufferWrapper(10)
    view = block.create_memoryview()
    assert (view.nbytes, view.readonly, bytes(view), block.size) == (10, False, bytes(10), 10)
    view[3] = 7
    assert memoryview(block)[3] == 7
    twin = ForkingPickler.loads(ForkingPickler.dumps(block))
    twin.create_memoryview()[4] = 8
    assert bytes(view)[3:5] == b"\x07\x08"
    block.note = "attributes are allowed"
    assert heap.BufferWrapper(0).size == 0
    assert isinstance(heap.BufferWrapper._heap, heap.Heap)


def test_buffer_wrapper_before_init() -> None:
    block = heap.BufferWrapper.__new__(heap.BufferWrapper)
    for call in (block.create_memoryview, lambda: memoryview(block), block.__reduce__):
        with pytest.raises(RuntimeError, match="was not called"):
            call()


def test_heap_and_arena(ours: ModuleType) -> None:
    portions = heap.Heap()
    arena, start, stop = block = portions.malloc(100)
    arena.buffer[start:stop] = bytes(range(100))
    assert (arena.size, arena.fd, stop - start) == (100, -1, 100)
    portions.free(block)
    with pytest.raises(ValueError, match="descriptor 5"):
        heap.Arena(100, 5)
    with pytest.raises(ValueError):
        portions.malloc(-1)


# --- sizes and types that cannot be --------------------------------------------------------------


@pytest.mark.parametrize("make", ["RawArray", "Array"])
@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), (-(2**70), (ValueError, OverflowError)), (2**61, (MemoryError, OverflowError)),
     (2**63, OverflowError), (2**70, OverflowError), (1.5, TypeError), (None, TypeError)],
)  # fmt: skip
def test_sizes_that_cannot_be(mp: ModuleType, make: str, size: Any, error: Any) -> None:
    with pytest.raises(error):
        getattr(mp, make)("i", size)


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (2**63, OverflowError), ("1", TypeError)])
def test_blocks_that_cannot_be(ours: ModuleType, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        heap.BufferWrapper(size)


def test_more_than_there_is(mp: ModuleType) -> None:
    with pytest.raises(mp.MemoryLimitError, match=r"a shared block of 1099511627776 bytes.*limit"):
        mp.RawArray("B", 1 << 40)
    with pytest.raises(mp.MemoryLimitError, match="1099511627776"):
        heap.BufferWrapper(1 << 40)
    assert mp.RawArray("B", 10)[9] == 0


@pytest.mark.parametrize("bad", ["x", "ii", "", 5, None, int, ctypes.c_int(5), object])
def test_types_that_are_none(mp: ModuleType, bad: Any) -> None:
    for make in (mp.RawValue, mp.Value):
        with pytest.raises(TypeError, match="neither a type code"):
            make(bad)
    for make in (mp.RawArray, mp.Array):
        with pytest.raises(TypeError, match="neither a type code"):
            make(bad, 2)


def test_arguments_that_do_not_suit(both: ModuleType) -> None:
    for make in (both.RawValue, both.Value):
        with pytest.raises(TypeError):
            make("i", "text")
        with pytest.raises(TypeError):
            make("i", 1, 2)
        with pytest.raises(TypeError):
            make()
        with pytest.raises(TypeError):
            make(Point, 1, 2, 3)
    with pytest.raises(TypeError):
        both.RawArray("i", ["text"])


def test_new_type_codes_are_looked_up(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sharedctypes.typecode_to_type, "P", Point)
    assert type(mp.RawValue("P")) is Point
    assert type(mp.RawArray("P", 2)[0]) is Point
