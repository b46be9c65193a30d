"""Digest of what a Python callable computes, the same in every process: its code, arguments and the values it uses."""

import dis
import enum
import functools
import hashlib
import importlib
import logging
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffident.encoders.common import plain_repr, weights_digest
from diffident.errors import InputError

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, enum.Enum, PurePath, torch.dtype, torch.device)
_SLOTS = (types.GetSetDescriptorType, types.MemberDescriptorType)


def digest_callable(function: Callable) -> str:
    """Digest of a function and of all that it uses.

    Counted are its code (not comments or layout), defaults, closure, the global values that it names, the arguments
    of a partial, the attributes of an object, the source of modules, and the layers, their plain settings and the
    weights of a network. What installed libraries define counts by name, but for the library of a function or object
    itself.

    Raises:
        InputError: it uses something that cannot be described, such as a lock; names it.
    """
    describer = _Describer(_own_package(function), modes=not isinstance(function, nn.Module))
    return hashlib.sha256(describer.describe(function, "the function").encode()).hexdigest()


class _Describer:
    def __init__(self, package: str | None, *, modes: bool):
        self._package = package
        self._hidden = () if modes else ("training",)  # a network that is the encoder itself is put into its mode
        self._path: list[int] = []
        # The objects are kept beside their texts, so that their ids stay taken.
        self._done: dict[int, tuple[Any, str]] = {}

    def describe(self, value: Any, where: str) -> str:
        """A text that is equal for equal values; `where` names the value in errors."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._path:
            return f"the one {len(self._path) - self._path.index(id(value))} levels up"
        self._path.append(id(value))
        text = self._compound(value, where)
        self._path.pop()
        text = text if len(text) < 200 else hashlib.sha256(text.encode()).hexdigest()
        self._done[id(value)] = value, text
        return text

    def _compound(self, value: Any, where: str) -> str:
        if isinstance(value, np.ndarray | np.generic | Tensor):
            return _describe_array(value)
        if isinstance(value, list | tuple):
            return f"{type(value).__name__} {self._each(value, where)}"
        if isinstance(value, dict | types.MappingProxyType):
            return f"dict {[self._each(item, where) for item in value.items()]}"
        if isinstance(value, set | frozenset):
            return f"set {sorted(self._each(value, where))}"
        if isinstance(value, types.ModuleType):
            return self._module(value, where)
        if isinstance(value, logging.Logger):
            return f"{type(value).__name__} {getattr(value, '__name__', '')}"
        if isinstance(value, types.CodeType):
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
            return f"code {value.co_code.hex()} {names} {self._each(value.co_consts, where)}"
        if isinstance(value, functools.partial):
            return f"partial {self._each((value.func, value.args, value.keywords), where)}"
        if isinstance(value, types.MethodType):
            return f"method {self._each((value.__func__, value.__self__), where)}"
        if isinstance(value, functools._lru_cache_wrapper) or _is_library_wrapper(value):
            return f"wrapped {self.describe(value.__wrapped__, where)}"
        if isinstance(value, nn.Module):
            return self._network(value, where)
        if callable(value) and hasattr(value, "__name__"):
            return self._definition(value, where)
        return self._object(value, where)

    def _counts(self, definition: Any) -> bool:
        """Whether the code behind a name counts: it is beside the function, or in no installed library."""
        package = _package(definition)
        return package == self._package or not _is_library(package)

    def _each(self, values: Iterable, where: str) -> list[str]:
        return [self.describe(value, where) for value in values]

    def _named(self, values: dict[str, Any], where: str) -> list[str]:
        return [f"{name} {self.describe(value, f'`{name}` of {where}')}" for name, value in sorted(values.items())]

    def _definition(self, value: Any, where: str) -> str:
        name = getattr(value, "__qualname__", value.__name__)
        if not (self._counts(value) and isinstance(value, type | types.FunctionType)):
            return f"name {getattr(value, '__module__', None)}.{name}"
        if isinstance(value, type):
            members = {
                key: getattr(member, "__func__", getattr(member, "fget", member))
                for key, member in vars(value).items()
                if key != "_abc_impl"
                and not isinstance(member, _SLOTS)
                and (isinstance(member, types.FunctionType) or not key.startswith("__"))
            }
            return f"class {self._each(value.__bases__, where)} {self._named(members, name)}"
        code = value.__code__
        used = {key: value.__globals__[key] for key in _names(code) if key in value.__globals__}
        used |= {f"import {key}": module for key in _imports(code) if (module := _imported(key)) is not None}
        closure = dict(zip(code.co_freevars, map(_content, value.__closure__ or ()), strict=True))
        own = self._each((code, value.__defaults__, value.__kwdefaults__), name)
        return f"function {own} {self._named(closure, name)} {self._named(used, name)}"

    def _module(self, value: types.ModuleType, where: str) -> str:
        """A module of one's own by its source, and by those that it uses; others by name."""
        file = getattr(value, "__file__", None)
        if file is None or not self._counts_module(value.__name__):
            return f"module {value.__name__}"
        used = {str(getattr(one, "__module__", None)) for one in vars(value).values()} - {value.__name__}
        used |= {one.__name__ for one in vars(value).values() if isinstance(one, types.ModuleType)}
        own = sorted(name for name in used & set(sys.modules) if self._counts_module(name))
        others = self._each([sys.modules[name] for name in own], where)
        return f"module {value.__name__} {hashlib.sha256(Path(file).read_bytes()).hexdigest()} {others}"

    def _counts_module(self, name: str) -> bool:
        package = name.split(".")[0]
        return package == self._package or not _is_library(package)

    def _network(self, value: nn.Module, where: str) -> str:
        ours = [module for module in value.modules() if self._counts(type(module))]
        others = [module for module in value.modules() if not self._counts(type(module))]
        plain = [self._named(self._public(module), type(module).__name__) for module in ours]
        kinds = self._each((type(value), *map(type, ours)), where)
        # Of a library's layers what can be described: their reprs leave out the number of heads and the like.
        library = [
            self._named({k: v for k, v in self._public(module).items() if _is_plain(v)}, type(module).__name__)
            for module in others
        ]
        return f"network {kinds} {plain} {weights_digest(value)}{library or ''}"

    def _public(self, module: nn.Module) -> dict[str, Any]:
        return {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in self._hidden}

    def _object(self, value: Any, where: str) -> str:
        slots = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())]
        if not hasattr(value, "__dict__") and not slots:
            raise InputError(
                f"`encoder` must be made of code, numbers, arrays and networks, so that a changed one is noticed; got "
                f"{plain_repr(type(value))} at {where}. Set the function's attribute `fingerprint` to a text that "
                "changes with it, or give CallableEncoder(function, fingerprint=...)."
            )
        state = {key: getattr(value, key, None) for key in slots} | getattr(value, "__dict__", {})
        return f"object {self.describe(type(value), where)} {self._named(state, type(value).__name__)}"


def _is_plain(value: Any) -> bool:
    """Whether a value is numbers, texts and functions, in lists and dicts or not."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(part) for item in value.items() for part in item)
    return isinstance(value, (*_PLAIN, types.FunctionType, types.BuiltinFunctionType, type))


def _describe_array(value: Any) -> str:
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        value = np.asarray(value)
        content = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    return f"array {value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"


def _names(code: types.CodeType) -> set[str]:
    """The names that the code and the functions in it use."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def _imports(code: types.CodeType) -> set[str]:
    """The modules that the code and the functions in it import when they run."""
    inner = [_imports(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    own = {step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME" and step.argval}
    return own.union(*inner)


def _imported(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _package(value: Any) -> str:
    """The first word of the module where the value, or its class, is defined."""
    while isinstance(value, functools.partial):
        value = value.func
    return (getattr(value, "__module__", None) or getattr(type(value), "__module__", None) or "").split(".")[0]


def _own_package(function: Callable) -> str | None:
    """The package whose code counts although it may be installed; none of a library's network or method."""
    package = _package(function)
    while isinstance(function, functools.partial):
        function = function.func
    return None if isinstance(function, nn.Module | types.MethodType) and _is_library(package) else package


def _is_library_wrapper(value: Any) -> bool:
    """Whether a decorator of an installed library made this from another function."""
    is_wrapper = isinstance(value, types.FunctionType) and hasattr(value, "__wrapped__")
    return is_wrapper and _is_library(str(value.__globals__.get("__name__")).split(".")[0])


def _is_library(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = any(part in ("site-packages", "dist-packages") for part in PurePath(file).parts)
    return not package or package in sys.stdlib_module_names or installed
