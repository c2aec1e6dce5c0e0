"""Regenerates gen/meshwright/gen from protos/. Run by `make gen`; CI fails where the result differs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

REPO = Path(__file__).resolve().parents[1]
OUT = REPO / "gen"
PACKAGE = "meshwright/gen/"


def main() -> None:
    """Writes typed stubs, the published descriptor set and the contract's comments."""
    shutil.rmtree(OUT / PACKAGE, ignore_errors=True)
    (OUT / PACKAGE).mkdir(parents=True)
    published = OUT / PACKAGE / "descriptors.binpb"
    tools = Path(sys.executable).parent
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"  # protoc looks its plugins up there
    buf = tools / "buf"
    subprocess.run([buf, "build", "--exclude-source-info", "-o", published], cwd=REPO, check=True)
    image = rehomed(published.read_bytes())
    names = [file.name for file in image.file if file.name.startswith(PACKAGE)]
    with_comments = subprocess.run([buf, "build", "-o", "-#format=binpb"], cwd=REPO, check=True, capture_output=True)
    described = OUT / "image.binpb"
    described.write_bytes(rehomed(with_comments.stdout).SerializeToString())
    kinds = ("python_out=", "mypy_out=quiet:", "grpc_python_out=", "mypy_grpc_out=quiet:")
    try:
        failed = protoc.main(["", f"--descriptor_set_in={described}", *(f"--{kind}{OUT}" for kind in kinds), *names])
    finally:
        described.unlink()
    if failed:
        raise SystemExit("protoc failed")
    for grpc_stub in (OUT / PACKAGE).rglob("*_pb2_grpc.py"):
        if "service" not in grpc_stub.name:  # a file of messages alone
            grpc_stub.unlink()
            grpc_stub.with_suffix(".pyi").unlink()
    (OUT / PACKAGE / "py.typed").touch()
    said = comments(FileDescriptorSet.FromString(with_comments.stdout))
    (OUT / PACKAGE / "comments.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def comments(image: FileDescriptorSet) -> dict[str, str]:
    """Returns what the contract says of its elements, by full name: code that was generated has no comments."""
    return {
        name_of(file, location.path): " ".join(location.leading_comments.split())
        for file in image.file
        for location in file.source_code_info.location
        if location.leading_comments and len(location.path) > 1 and not file.name.startswith("google/")
    }


def name_of(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Names the element at a path of field numbers and indices; an enum's value by its enum."""
    names, element = [file.package], file
    for number, index in zip(path[::2], path[1::2], strict=True):
        element = getattr(element, element.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(element.name)
    return ".".join(names)


def rehomed(image: bytes) -> FileDescriptorSet:
    """Prefixes our own files' names, so that protoc writes imports of `meshwright.gen...`."""
    files = FileDescriptorSet.FromString(image)
    own = {file.name for file in files.file if not file.name.startswith("google/")}
    for file in files.file:
        file.name = PACKAGE * (file.name in own) + file.name
        for index, dependency in enumerate(file.dependency):
            file.dependency[index] = PACKAGE * (dependency in own) + dependency
    return files


if __name__ == "__main__":
    main()
