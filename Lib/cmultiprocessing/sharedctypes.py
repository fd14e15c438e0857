# SPDX-License-Identifier: PSF-2.0
"""ctypes objects in shared memory, with or without a lock.

They are real ctypes objects: isinstance() holds, memoryview() and numpy.frombuffer() work, and whatever looks at the
memory keeps it. The synchronized ones (Value and Array with a lock) are native types that read and write numbers
without asking ctypes.
"""
from __future__ import annotations

import ctypes
import operator
import weakref

from . import _cmultiprocessing, heap
from .reduction import ForkingPickler

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

#: What the type codes of the array module, and 'c' and 'u', mean.
typecode_to_type: dict[str, type] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}

_Simple: Any = ctypes.c_int.__mro__[1]  # what c_int and its like derive from; it has no public name

#: How to make objects of a type: (size, from_buffer). For arrays it is asked anew: they come in every length.
_entries: dict[type, tuple[int, Callable[..., Any]]] = {
    type_: (ctypes.sizeof(type_), type_.from_buffer)  # type: ignore[attr-defined]
    for type_ in (*typecode_to_type.values(), ctypes.c_bool)
}
#: Numbers and characters whose bytes are what they seem to be; not subclasses, which may see it differently.
_cells = frozenset(_entries) - {ctypes.c_wchar}


def _describe(type_: Any) -> tuple[int, Callable[..., Any]]:
    """How to make objects of a type that is not in _entries; from here on they can be pickled.

    Raises:
        TypeError: it is no ctypes type.
    """
    if not isinstance(type_, type) or not hasattr(type_, "from_buffer"):
        codes = ", ".join(typecode_to_type)
        raise TypeError(f"{type_!r} is neither a type code ({codes}) nor a ctypes type")
    entry = (ctypes.sizeof(type_), type_.from_buffer)
    ForkingPickler.register(type_, reduce_ctype)
    if not issubclass(type_, ctypes.Array):
        _entries[type_] = entry
    return entry


def _cell_code(type_: Any) -> tuple[str, int]:
    """Type code and size of a number, or of the items of an array of them; ('', 0) for everything else."""
    item = type_
    if issubclass(type_, ctypes.Array):
        item = type_._type_
        overridden = any(
            getattr(type_, name) is not getattr(ctypes.Array, name) for name in ("__getitem__", "__setitem__")
        )
        if overridden:
            return "", 0
    return (item._type_, ctypes.sizeof(item)) if item in _cells else ("", 0)


# --- pickling ------------------------------------------------------------------------------------


def _home(obj: Any) -> tuple[Any, int] | None:
    """The block that a ctypes object lies in, and where in it; None for an object in private memory."""
    root = obj
    while root._b_base_ is not None:
        root = root._b_base_
    kept = root._objects  # a dict where the type has parts, else what is kept itself
    for view in kept.values() if isinstance(kept, dict) else (kept,):
        block = view.obj if isinstance(view, memoryview) else None
        if isinstance(block, heap.BufferWrapper):
            offset = ctypes.addressof(obj) - block._address
            if 0 <= offset <= block.size - ctypes.sizeof(obj):
                return block, offset
    return None


def reduce_ctype(obj: Any) -> Any:
    """What __reduce__ of a ctypes object should return: one in shared memory is sent as its place there.

    Raises:
        ValueError: an object in private memory that contains pointers.
    """
    home = _home(obj)
    if home is not None:
        return rebuild_ctype, _parts(obj, *home)
    reduced = obj.__reduce_ex__(4)
    if _is_plain_array(obj):
        return _private_array, (obj._type_, obj._length_, reduced[1][1])
    return reduced


def _is_plain_array(obj: Any) -> bool:
    """Is it an array of a type that was made by multiplying? Such a type has no name to be found by."""
    return isinstance(obj, ctypes.Array) and type(obj) is obj._type_ * obj._length_


def _parts(obj: Any, block: Any, offset: int) -> tuple[Any, Any, int | None, int]:
    """Arguments for rebuild_ctype."""
    if _is_plain_array(obj):
        return obj._type_, block, obj._length_, offset
    return type(obj), block, None, offset


def _private_array(item: Any, length: int, state: Any) -> Any:
    """A copy of an array in private memory."""
    array = (item * length)()
    array.__setstate__(*state)
    return array


def rebuild_ctype(type_: Any, wrapper: Any, length: int | None, offset: int = 0) -> Any:
    """The ctypes object of a type at a place in shared memory.

    Args:
        type_: of the object, or of an array's items.
        wrapper: its BufferWrapper.
        length: of an array; None: it is none.
        offset: where it begins, in bytes.

    Raises:
        ValueError: the block has not that many bytes.
    """
    if length is not None:
        type_ = type_ * length
    _, from_buffer = _entries.get(type_) or _describe(type_)
    return from_buffer(wrapper, offset)


def _reduce_synchronized(wrapped: SynchronizedBase) -> tuple[Any, ...]:
    """__reduce__ of synchronized objects. The place travels under every pickler, not the number."""
    obj, lock = wrapped.get_obj(), wrapped.get_lock()
    home = _home(obj)
    if home is None:
        return synchronized, (obj, lock)
    return _rebuild_synchronized, (lock, *_parts(obj, *home))


def _rebuild_synchronized(lock: Any, *parts: Any) -> Any:
    """Undo _reduce_synchronized."""
    return synchronized(rebuild_ctype(*parts), lock)


if TYPE_CHECKING:
    from ._cmultiprocessing import _Synchronized as Synchronized
    from ._cmultiprocessing import _SynchronizedArray as SynchronizedArray
    from ._cmultiprocessing import _SynchronizedBase as SynchronizedBase
    from ._cmultiprocessing import _SynchronizedString as SynchronizedString

    def raw_value(typecode_or_type: Any, *args: Any) -> Any:
        """RawValue in C."""

    def _new_value(type_: Any) -> Any:
        """A zeroed object of a ctypes type in shared memory; its __init__ is not called."""

else:
    raw_value, _new_value, SynchronizedBase, Synchronized, SynchronizedArray, SynchronizedString = (
        _cmultiprocessing.load_sharedctypes(typecode_to_type, _entries, _describe, _cell_code, _reduce_synchronized)
    )
for _type in _entries:
    ForkingPickler.register(_type, reduce_ctype)


# --- objects without a lock ----------------------------------------------------------------------


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """A ctypes object in shared memory, without a lock.

    Args:
        typecode_or_type: a type code, or any ctypes type.
        args: for the type.

    Returns:
        the object; zero where nothing is given.

    Raises:
        TypeError: neither a type code nor a ctypes type, or args do not suit it.
        MemoryLimitError: more than the machine or a control group has left.

    Since 2.6; multiprocessing documentation, 'The multiprocessing.sharedctypes module'.
    """
    return raw_value(typecode_or_type, *args)


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """A ctypes array in shared memory, without a lock.

    Args:
        typecode_or_type: of the items: a type code, or any ctypes type.
        size_or_initializer: a number of items, which are zero, or a sequence of them.

    Returns:
        the array.

    Raises:
        TypeError: neither a type code nor a ctypes type, or items do not suit it.
        ValueError: a negative size.
        OverflowError: a size beyond what an address can say.
        MemoryLimitError: more than the machine or a control group has left.

    Since 2.6; multiprocessing documentation, 'The multiprocessing.sharedctypes module'.
    """
    is_code = isinstance(typecode_or_type, str)
    item = typecode_to_type.get(typecode_or_type, typecode_or_type) if is_code else typecode_or_type
    if not isinstance(item, type) or item not in _entries:
        _describe(item)
    if not hasattr(size_or_initializer, "__len__"):
        return _new_value(item * operator.index(size_or_initializer))
    array = _new_value(item * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def copy(obj: Any) -> Any:
    """A copy of a ctypes object in shared memory, without a lock.

    Since 2.6; multiprocessing documentation, 'The multiprocessing.sharedctypes module'.
    """
    fresh = _new_value(type(obj))
    ctypes.pointer(fresh)[0] = obj
    return fresh


# --- objects with a lock -------------------------------------------------------------------------


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """A ctypes object in shared memory, with a lock that each access takes.

    Args:
        typecode_or_type: a type code, or any ctypes type.
        args: for the type.
        lock: True or None makes an RLock; False: the bare object, as RawValue; else the lock to use.
        ctx: the context that makes the lock.

    Returns:
        Synchronized, with `value`; for structures and unions an object with the same fields.

    Raises:
        AttributeError: lock is no lock.
        TypeError: neither a type code nor a ctypes type, or args do not suit it.
        MemoryLimitError: more than the machine or a control group has left.

    Since 2.6; multiprocessing documentation, 'Shared ctypes Objects'.
    """
    return _guarded(raw_value(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """A ctypes array in shared memory, with a lock that each access takes.

    Args:
        typecode_or_type: of the items: a type code, or any ctypes type.
        size_or_initializer: a number of items, which are zero, or a sequence of them.
        lock: True or None makes an RLock; False: the bare array, as RawArray; else the lock to use.
        ctx: the context that makes the lock.

    Returns:
        SynchronizedArray; of characters: SynchronizedString, with `value` and `raw`.

    Raises:
        AttributeError: lock is no lock.
        TypeError, ValueError, OverflowError, MemoryLimitError: as for RawArray.

    Since 2.6; multiprocessing documentation, 'Shared ctypes Objects'.
    """
    return _guarded(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _guarded(obj: Any, lock: Any, ctx: Any) -> Any:
    """The object with the lock that lock= asks for."""
    if lock is False:
        return obj
    if lock is True or lock is None:
        return synchronized(obj, None, ctx)
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock)


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """A ctypes object with a lock.

    Args:
        obj: the object, normally one in shared memory.
        lock: anything with acquire() and release(); None makes an RLock.
        ctx: the context that makes the lock.

    Raises:
        AssertionError: it has one already.
        TypeError: it is no ctypes object.

    Since 2.6; multiprocessing documentation, 'The multiprocessing.sharedctypes module'.
    """
    if isinstance(obj, SynchronizedBase):
        raise AssertionError("object already synchronized")
    if isinstance(obj, _Simple):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        characters = obj._type_ is ctypes.c_char
        return (SynchronizedString if characters else SynchronizedArray)(obj, lock, ctx)
    if not hasattr(obj, "_b_base_"):
        raise TypeError(f"{type(obj).__name__!r} is not a ctypes object")
    return (class_cache.get(type(obj)) or _class_for(type(obj)))(obj, lock, ctx)


#: Classes made for structures and unions: the fields of each are properties that take the lock.
class_cache: weakref.WeakKeyDictionary[type, type[SynchronizedBase]] = weakref.WeakKeyDictionary()


def _class_for(type_: type) -> type[SynchronizedBase]:
    """Make the class for a structure or union."""
    names = [field[0] for base in reversed(type_.__mro__) for field in vars(base).get("_fields_", ())]
    made = type("Synchronized" + type_.__name__, (SynchronizedBase,), {name: _field(name) for name in names})
    made.__doc__ = f"A {type_.__name__} and its lock; each access to a field takes it."
    class_cache[type_] = made
    return made


def _field(name: str) -> property:
    """A field of a structure, under the object's lock."""

    def read(self: SynchronizedBase) -> Any:
        self.acquire()
        try:
            return getattr(self.get_obj(), name)
        finally:
            self.release()

    def write(self: SynchronizedBase, value: Any) -> None:
        self.acquire()
        try:
            setattr(self.get_obj(), name, value)
        finally:
            self.release()

    return property(read, write, doc=f"The field {name!r}.")
