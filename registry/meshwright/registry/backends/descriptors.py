"""Services that know nothing of us, as their descriptors tell of them."""

import importlib
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from meshwright.core.errors import SetupError
from meshwright.registry.file import content

MAX_BYTES = 8 * 2**20
WELL_KNOWN = re.compile(r"google/protobuf/[a-z_]+\.proto")


class Services:
    """The services of a descriptor set, or of the module that was generated for them.

    Args:
        pool: Where their messages are.
        names: Full names.
    """

    def __init__(self, pool: DescriptorPool, names: Iterable[str]) -> None:
        self.pool = pool
        self._names = sorted(names)

    def service(self, name: str) -> ServiceDescriptor:
        """Returns a service.

        Raises:
            SetupError: There is none of that name.
        """
        if name not in self._names:
            known = ", ".join(self._names[:10]) or "none"
            raise SetupError(f"there is no service {name}: the services are {known}")
        return self.pool.FindServiceByName(name)

    def method(self, path: str) -> MethodDescriptor:
        """Returns `package.Service/Method`.

        Raises:
            SetupError: There is none, or it streams.
        """
        service, _, name = path.partition("/")
        found = self.service(service).methods_by_name.get(name)
        if found is None:
            raise SetupError(f"{service} has no method {name or '(none was named)'}: write package.Service/Method")
        if found.client_streaming or found.server_streaming:
            raise SetupError(f"{path} streams: a tool is one question and one answer")
        return found

    def unary(self, name: str) -> list[MethodDescriptor]:
        """Returns the methods of a service that do not stream.

        Raises:
            SetupError: There is no such service, or all of its methods stream.
        """
        found = [one for one in self.service(name).methods if not (one.client_streaming or one.server_streaming)]
        if not found:
            raise SetupError(f"all methods of {name} stream: a tool is one question and one answer")
        return found


def from_file(path: Path) -> Services:
    """Reads a FileDescriptorSet (`protoc --include_imports --descriptor_set_out`, `buf build -o`).

    Raises:
        SetupError: It cannot be read, or does not hold what it imports.
    """
    text = content(path, MAX_BYTES)
    try:
        files = {one.name: one for one in FileDescriptorSet.FromString(text).file}
    except DecodeError:
        raise SetupError(f"{path} is no FileDescriptorSet") from None
    pool = DescriptorPool()
    for name in in_order(files):
        try:
            pool.Add(files[name])
        except (TypeError, ValueError) as error:
            raise SetupError(f"{path}: {name} cannot be used: {' '.join(str(error).split())[:200]}") from None
    names = [f"{one.package}.{service.name}".lstrip(".") for one in files.values() for service in one.service]
    return Services(pool, names)


def in_order(files: dict[str, FileDescriptorProto]) -> list[str]:
    """Returns the names of files so that each comes after those that it imports; adds the well-known ones.

    Raises:
        SetupError: One imports what is not there, or itself by a detour.
    """
    pending = list(files)
    while pending:
        name = pending.pop()
        for imported in files[name].dependency:
            if imported not in files:
                files[imported] = well_known(imported, name)
                pending.append(imported)
    try:
        return list(TopologicalSorter({name: file.dependency for name, file in files.items()}).static_order())
    except CycleError:
        raise SetupError("its files import each other in a circle") from None


def well_known(name: str, importer: str) -> FileDescriptorProto:
    """Returns a file that every protobuf library has.

    Raises:
        SetupError: It is no such file.
    """
    if not WELL_KNOWN.fullmatch(name):
        raise SetupError(f"{importer} imports {name}, which is not there: write the set with --include_imports")
    found = FileDescriptorProto()
    try:
        importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2").DESCRIPTOR.CopyToProto(found)
    except ImportError:
        raise SetupError(f"{importer} imports {name}, which nobody has") from None
    return found


def from_module(name: str) -> Services:
    """Reads the services of a generated module (`*_pb2`).

    Raises:
        SetupError: There is none of that name, or it was not generated from a .proto file.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise SetupError(f"{name} cannot be imported: {error}") from None
    file = getattr(module, "DESCRIPTOR", None)
    if not isinstance(file, FileDescriptor):
        raise SetupError(f"{name} holds no descriptor: name the module that ends in _pb2")
    return Services(descriptor_pool.Default(), [one.full_name for one in file.services_by_name.values()])
