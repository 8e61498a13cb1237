"""Replacing what modules of the standard library offer, and putting it back.

A module's function is replaced where it stands and in every other module that has taken it by name
(``from time import monotonic``), whenever that was: those imported before are found when the patches are spread, those
imported meanwhile when they are removed. Not found are names kept in a class, a default argument or an object from
before. Who keeps a replacement beyond its time is served by what the module has under that name by then.

Modules of libos keep what they have: what they take by name stays the host's.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

__all__ = ["Function", "Original", "Patches"]

Function = Callable[..., Any]


class Original:
    """The function that a replacement stands for. Afterwards: whatever has that name by then."""

    __slots__ = ("_function", "_module", "_name", "replacement")

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module = module
        self._name = name
        self._function = vars(module)[name]
        self.replacement: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (now := vars(self._module)[self._name]) is self.replacement:
            return self._function(*args, **kwargs)
        return now(*args, **kwargs)


class Patches:
    """Everything that was replaced, in order. :meth:`remove` undoes it, last first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._swapped: list[tuple[Any, Any]] = []
        self._seen: set[str] = set()  # modules that were there at the beginning

    def function(self, module: ModuleType, name: str, make: Callable[[Original], Function]) -> None:
        """Replace ``module.name`` by ``make(original)``. Not every Python has every name."""
        if name not in vars(module):
            return
        original = Original(module, name)
        function = make(original)
        function.__name__ = function.__qualname__ = name
        function.__module__ = module.__name__
        # A builtin that a class takes for an attribute does not become a method, and neither does this.
        original.replacement = staticmethod(function)
        self.swap(module, name, original.replacement)

    def swap(self, module: ModuleType, name: str, new: Any) -> None:
        """``module.name`` is ``new``, there and wherever it was taken to."""
        self._swapped.append((vars(module)[name], new))
        self.value(module, name, new)

    def value(self, holder: Any, name: str, new: Any) -> None:
        """``holder.name`` is ``new``: a module's variable, or an attribute of a class or an object."""
        before = vars(holder)[name]
        self._undo.append(lambda: setattr(holder, name, before))
        setattr(holder, name, new)

    def method(self, cls: type, name: str, make: Callable[[Function], Function]) -> None:
        """Replace the method ``name`` of a class that is written in Python, for all who have the class already."""
        before = vars(cls)[name]
        function = make(before)
        function.__name__, function.__qualname__, function.__module__ = name, before.__qualname__, cls.__module__
        self.value(cls, name, function)

    def class_method(self, cls: type, name: str, make: Callable[[Any], Function]) -> None:
        """Replace a class method of a type that is written in C.

        Such a type does not let its attributes be set, so the entry is changed in its dictionary. A subclass under its
        name instead would be another type to everybody who asks (pickle, msgspec, pydantic).
        """
        entries: dict[str, Any] = gc.get_referents(vars(cls))[0]  # what the read-only view is of
        before = entries[name]

        def put(entry: Any) -> None:
            entries[name] = entry
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))  # the interpreter caches look-ups

        function = make(before)
        function.__name__, function.__qualname__, function.__module__ = name, before.__qualname__, cls.__module__
        self._undo.append(lambda: put(before))
        put(classmethod(function))

    def also(self, undo: Callable[[], object]) -> None:
        """Something that was done besides, and how to undo it."""
        self._undo.append(undo)

    def spread(self) -> None:
        """To the modules that took a name before."""
        self._seen = set(sys.modules)
        self._exchange({id(old): (old, new) for old, new in self._swapped}, self._seen)

    def remove(self) -> None:
        new_modules = set(sys.modules) - self._seen if self._seen else set()
        while self._undo:
            self._undo.pop()()
        self._exchange({id(new): (new, old) for old, new in self._swapped}, new_modules)
        self._undo.clear()
        self._swapped.clear()

    def _exchange(self, pairs: dict[int, tuple[Any, Any]], modules: set[str]) -> None:
        """In each of the modules, bind the names of every pair's first to its second."""
        for module in sorted(modules):
            names = _namespace(module)
            if not pairs.keys().isdisjoint(map(id, names.values())):  # few of many: this is the quick way past the rest
                for name in [name for name, value in names.items() if id(value) in pairs]:
                    before, after = pairs[id(names[name])]
                    self._undo.append(partial(names.__setitem__, name, before))
                    names[name] = after


def _namespace(name: str) -> dict[str, Any]:
    module = sys.modules.get(name)
    # Not isinstance(): the library of a cffi extension says that it is a module, and has no __dict__.
    if not issubclass(type(module), ModuleType) or name.partition(".")[0] == "libos":
        return {}
    names: dict[str, Any] = object.__getattribute__(module, "__dict__")  # module.__dict__ would load a lazy one
    return names
