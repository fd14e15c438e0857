# SPDX-License-Identifier: PSF-2.0
"""Functions and classes that a child cannot import: they travel as what they are made of, not by their name.

Children started by spawn or by the fork server import the program's main module, and find its functions there. Where
there is nothing to import (the interactive prompt, a notebook, `python -c`, a program that comes through stdin), or
where it is never imported again (`__main__.py` of a package, a directory or a zip file), what was defined in the main
module is sent along: code, defaults, closure, and those globals that the code names. In the child it becomes part of
the main module there, once: what arrives again is the same object, and what the child sends back is found by its name.

Data that arrived before is not replaced: a child's own changes to a global stay, as they do where it imports one.

Off until such a process is started; then every pickler of this package asks `reducer_override` first.
"""
from __future__ import annotations

import sys
import types
import weakref
from itertools import count

from . import reduction

TYPE_CHECKING = False  # typing costs more to import than all of this package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["activate", "adopt_main"]

_MAINS = ("__main__", "__mp_main__")

# What identifies an object in all processes; the one that defined it gave it its token. Both tables under no lock: each
# access is one operation of a dict.
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
# Those whose parts have all arrived, or that were made here.
_whole: weakref.WeakSet[Any] = weakref.WeakSet()
_counter = count()
_prefix = ""


def activate() -> None:
    """Have the picklers of this process send what a child cannot import by value."""
    if getattr(reduction.ForkingPickler, "reducer_override", None) is None:
        reduction.ForkingPickler.reducer_override = _reduce  # type: ignore[method-assign]


def adopt_main() -> types.ModuleType:
    """In a child: an empty main module, for what will arrive.

    Returns:
        The module that was the main one.
    """
    old = sys.modules["__main__"]
    module = types.ModuleType("__mp_main__")
    module.__dict__["__builtins__"] = __builtins__
    for name in _MAINS:
        sys.modules[name] = module
    return old


def _token_of(obj: Any) -> str:
    global _prefix
    token = _tokens.get(obj)
    if token is None:
        if not _prefix:
            import os

            _prefix = os.urandom(8).hex()
            os.register_at_fork(after_in_child=_forget_prefix)
        token = _tokens[obj] = f"{_prefix}-{next(_counter)}"
        _objects[token] = obj
        _whole.add(obj)
    return token


def _forget_prefix() -> None:
    global _prefix
    _prefix = ""


# Sending.


def _reduce(_pickler: Any, obj: Any) -> Any:
    """What the pickler writes for `obj`; NotImplemented: what it always writes."""
    kind = type(obj)
    if kind is types.FunctionType:
        return _reduce_function(obj) if _travels(obj) else NotImplemented
    if isinstance(obj, type):
        return _reduce_class(obj) if obj.__module__ in _MAINS else NotImplemented
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(obj)
    if kind.__module__ in ("dataclasses", "functools"):
        return _reduce_relative(obj)
    return NotImplemented


# Functions that are parts of what travels by value: generated methods, what a decorator has wrapped around something.
_parts: weakref.WeakSet[types.FunctionType] = weakref.WeakSet()


def _travels(function: types.FunctionType) -> bool:
    """Whether a function is sent by value.

    Not what an importable module defines inside of another function: that is refused, as ever.
    """
    return function.__module__ in _MAINS or function.__module__ not in sys.modules or function in _parts


def _add_part(value: Any) -> None:
    for function in (value, *(getattr(value, name, None) for name in ("__func__", "fget", "fset", "fdel"))):
        if type(function) is types.FunctionType and not _can_be_imported(function):
            _parts.add(function)


def _can_be_imported(obj: Any) -> bool:
    """Whether a child finds a function by its name."""
    if obj.__module__ in _MAINS:
        return False
    found: Any = sys.modules.get(obj.__module__)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def _reduce_function(function: types.FunctionType) -> tuple[Any, ...]:
    import marshal
    from importlib.util import MAGIC_NUMBER

    home = _home_of(function)
    used = {}
    if home in (None, "__main__"):
        names = set(_names_of_globals(function.__code__))
        used = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    state = {
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": function.__annotations__,
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__name__": function.__name__,
        "__qualname__": function.__qualname__,
    }
    cells = function.__closure__ or ()
    for cell in cells:
        for content in _contents(cell):
            _add_part(content)
    made_of = (_token_of(function), MAGIC_NUMBER, marshal.dumps(function.__code__), len(cells), home)
    rest = (state, function.__dict__, used, _submodules(used, function.__code__), list(map(_contents, cells)))
    return _make_function, made_of, rest, None, None, _complete_function


def _home_of(function: types.FunctionType) -> str | None:
    """The module whose globals it uses; None: they are nobody's, as those of generated functions."""
    name = function.__globals__.get("__name__")
    if name in _MAINS:
        return "__main__"
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and module.__dict__ is function.__globals__ else None


def _names_of_globals(code: types.CodeType) -> Iterator[str]:
    """Names that code, and the code in it, looks up as globals."""
    import dis

    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname or instruction.opname == "LOAD_NAME":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_of_globals(constant)


def _submodules(used: dict[str, Any], code: types.CodeType) -> list[types.ModuleType]:
    """Modules that the code reaches as attributes of packages: `xml.dom` is not there because `xml` is."""
    words = set(code.co_names)
    found = []
    for package in used.values():
        if isinstance(package, types.ModuleType) and hasattr(package, "__path__"):
            start = package.__name__ + "."
            for name, module in list(sys.modules.items()):
                if name.startswith(start) and module is not None and words.issuperset(name[len(start) :].split(".")):
                    found.append(module)
    return found


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    """What is in a cell; () where there is nothing yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


#: What every class gets for itself.
_OWN = ("__dict__", "__weakref__", "__slots__", "__module__", "__qualname__", "_abc_impl")


def _reduce_class(cls: Any) -> tuple[Any, ...]:
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(cls, enum.EnumMeta):
        return _reduce_enum(cls)
    namespace = dict(cls.__dict__)
    attributes = {
        name: value
        for name, value in namespace.items()
        if name not in _OWN and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
    }
    for value in attributes.values():
        _add_part(value)
    first = {name: namespace[name] for name in ("__slots__",) if name in namespace}
    first.update(__module__=cls.__module__, __qualname__=cls.__qualname__)
    made_of = (_token_of(cls), type(cls), cls.__name__, cls.__bases__, first)
    return _make_class, made_of, attributes, None, None, _complete_class


def _reduce_enum(cls: Any) -> tuple[Any, ...]:
    members = {name: member._value_ for name, member in cls.__members__.items()}
    functions = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in members and isinstance(value, types.FunctionType | property | classmethod | staticmethod)
        and not (name.startswith("__") and getattr(value, "__module__", None) in (None, "enum"))
    }  # fmt: skip
    made_of = (_token_of(cls), type(cls), cls.__name__, cls.__bases__, members, cls.__module__, cls.__qualname__)
    return _make_enum, made_of, functions, None, None, _complete_class


def _reduce_relative(obj: Any) -> Any:
    """Objects of the standard library that mean something by being themselves, or that refuse to be pickled."""
    import dataclasses
    import functools

    if type(obj).__module__ == "dataclasses":
        for name, value in vars(dataclasses).items():
            if value is obj:  # MISSING and the like
                return getattr, (dataclasses, name)
    elif isinstance(obj, functools._lru_cache_wrapper) and not _can_be_imported(obj):
        return _make_cached, (obj.__wrapped__, obj.cache_parameters())
    elif type(obj) is functools.cached_property:
        return _make_cached_property, (obj.func, obj.attrname)
    return NotImplemented


def _reduce_module(module: types.ModuleType) -> Any:
    if sys.modules.get(module.__name__) is not module:
        return NotImplemented
    return _find_module, (module.__name__,)


_SPECIAL: dict[type, Callable[[Any], Any]] = {
    types.ModuleType: _reduce_module,
    types.MappingProxyType: lambda proxy: (_make_proxy, (dict(proxy),)),
    property: lambda obj: (property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)),
    staticmethod: lambda obj: (staticmethod, (obj.__func__,)),
    classmethod: lambda obj: (classmethod, (obj.__func__,)),
}


# Receiving. Each is made empty first and completed later: functions and classes refer to themselves.


def _find_module(name: str) -> Any:
    import importlib

    return sys.modules["__main__"] if name in _MAINS else importlib.import_module(name)


def _known(token: str) -> Any:
    return _objects.get(token)


def _learn(token: str, obj: Any) -> Any:
    _tokens[obj] = token
    _objects[token] = obj
    return obj


def _make_function(token: str, magic: bytes, code: bytes, cells: int, home: str | None) -> Any:
    import marshal
    from importlib.util import MAGIC_NUMBER

    known = _known(token)
    if known is not None:
        return known
    if magic != MAGIC_NUMBER:
        raise RuntimeError(
            "a function that cannot be imported comes from another version of Python: functions of the interactive "
            "prompt, of -c and of notebooks run only in children of the same version"
        )
    variables: dict[str, Any] = {"__builtins__": __builtins__} if home is None else _find_module(home).__dict__
    closure = tuple(types.CellType() for _ in range(cells))
    return _learn(token, types.FunctionType(marshal.loads(code), variables, "", None, closure))


def _complete_function(function: types.FunctionType, rest: tuple[Any, ...]) -> None:
    state, attributes, used, _, contents = rest
    variables = function.__globals__
    for name, value in used.items():
        if isinstance(value, types.FunctionType | type):
            variables[name] = value  # the one that the sender has now
        else:
            variables.setdefault(name, value)
    if function in _whole:
        return
    for name, value in state.items():
        setattr(function, name, value)
    function.__dict__.update(attributes)
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        if content and not _contents(cell):
            cell.cell_contents = content[0]
    _put_into_main(function)
    _whole.add(function)


def _make_class(token: str, metaclass: Any, name: str, bases: tuple[type, ...], first: dict[str, Any]) -> Any:
    known = _known(token)
    if known is not None:
        return known
    return _learn(token, types.new_class(name, bases, {"metaclass": metaclass}, lambda body: body.update(first)))


def _make_enum(
    token: str, metaclass: Any, name: str, bases: tuple[type, ...], members: dict[str, Any], module: str, qualname: str
) -> Any:
    known = _known(token)
    if known is not None:
        return known
    body = metaclass.__prepare__(name, bases)
    body["__module__"], body["__qualname__"] = module, qualname
    for member, value in members.items():
        body[member] = value
    return _learn(token, metaclass(name, bases, body))


def _complete_class(cls: Any, attributes: dict[str, Any]) -> None:
    if cls in _whole:
        return
    for name, value in attributes.items():
        setattr(cls, name, value)
    _put_into_main(cls)
    _whole.add(cls)


def _put_into_main(obj: Any) -> None:
    """Let it stand where it stands in the sender's main module: there its name leads to it, also on the way back."""
    if obj.__module__ in _MAINS and obj.__qualname__.isidentifier():
        setattr(sys.modules["__main__"], obj.__qualname__, obj)


def _make_proxy(mapping: dict[Any, Any]) -> Any:
    return types.MappingProxyType(mapping)


def _make_cached(function: Any, parameters: dict[str, Any]) -> Any:
    import functools

    return functools.lru_cache(**parameters)(function)


def _make_cached_property(function: Any, name: str) -> Any:
    import functools

    made: Any = functools.cached_property(function)
    made.attrname = name
    return made
