"""The images: what is in each is enough to run, and a change in one agent's folder changes one of them.

No engine builds them here, as in tests/images: what their Dockerfiles copy is put together as they say, and run as they
say.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.agents.library.bundle import BUNDLED
from meshwright.cli.agent_new import project
from meshwright.core.healthy import WITHIN_S
from meshwright.gateway import envoy
from tests.ports import free_ports

REPO = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("images", REPO / ".ci" / "images.py")
images = importlib.util.module_from_spec(SPEC)
sys.modules["images"] = images
SPEC.loader.exec_module(images)
ALL = {image.name: image for image in images.images()}
TOOL = images.Image("tool", "registry/tool.Dockerfile", below=ALL["runtime"])
START_S = 30


def assemble(image, root):
    """Does what an image's COPY instructions say, below a folder."""
    if image.below:
        assemble(image.below, root)
    context = REPO / image.context
    for patterns, to in images.copies(image):
        if to == "/requirements.lock":
            continue
        target = root / to.lstrip("/")
        for pattern in patterns:
            for path in context.glob(pattern):
                if path.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(path, target, dirs_exist_ok=True, ignore=ignored)
                else:
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)


def value(image, word):
    """What an instruction of a Dockerfile says, of the image or of one below it."""
    text = (REPO / image.dockerfile).read_text()
    found = [rest for name, (rest, *_) in images.instructions(text) if name == word]
    return found[-1] if found else value(image.below, word) if image.below else None


@contextlib.asynccontextmanager
async def running(image, root, *arguments, **environment):
    """Runs an assembled image's command, with nothing else of ours to import; yields what it says, line by line."""
    command = json.loads(value(image, "ENTRYPOINT"))
    given = arguments or json.loads(value(image, "CMD") or "[]")
    packages = os.pathsep.join([str(root / "opt/meshwright"), *site.getsitepackages()])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", *command[1:], *given),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "MESHWRIGHT_PORT": "0"}
        | environment,
        cwd=root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def target_of(process):
    """Reads the line in which a process says where it listens."""
    async with asyncio.timeout(START_S):
        line = await process.stdout.readline()
        if not line:
            raise AssertionError((await process.stderr.read()).decode()[-2_000:])
    return json.loads(line)["target"]


async def serves(target):
    """Whether a server says that it serves."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(START_S):
            while True:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return True
                await asyncio.sleep(0.1)


def defaults(image):
    """The variables that an image sets, those of the images below it included."""
    told = defaults(image.below) if image.below else {}
    for word, (rest, *_) in images.instructions((REPO / image.dockerfile).read_text()):
        if word == "ENV":
            told |= dict(one.split("=", 1) for one in rest.split())
    return told


async def health(image, root, port):
    """Runs an assembled image's health command; returns its exit code."""
    _, _, command = value(image, "HEALTHCHECK").partition(" CMD ")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", *json.loads(command)[1:]),
        env={"PYTHONPATH": str(root / "opt/meshwright"), "MESHWRIGHT_HEALTH_PORT": port},
        stderr=asyncio.subprocess.PIPE,
    )
    await process.communicate()
    return process.returncode


async def becomes_healthy(image, root, process, port):
    """Whether the health command says in time that an image's process is well, and that it is not once it has ended."""
    async with asyncio.timeout(START_S):
        while await health(image, root, port) != 0:
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    return await health(image, root, port) == 1


@pytest.mark.parametrize("name", [*ALL, "tool"])
def test_an_image_says_how_its_health_is_asked(name):
    image = ALL.get(name, TOOL)
    options, _, command = value(image, "HEALTHCHECK").partition(" CMD ")
    assert json.loads(command) == ["python", "-m", "meshwright.core.healthy"]
    told = dict(one.removeprefix("--").split("=") for one in options.split())
    assert set(told) == {"interval", "timeout", "start-period", "retries"}
    assert int(told["timeout"].removesuffix("s")) > WITHIN_S
    port = defaults(image)["MESHWRIGHT_HEALTH_PORT"]
    assert port in value(image, "EXPOSE").split()
    settings, _ = (one["data"] for one in yaml.safe_load_all((REPO / "k8s/base/settings.yaml").read_text()))
    assert port == settings["MESHWRIGHT_HEALTH_PORT"]


def test_podman_keeps_the_health_command():
    base = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
    for engine, kept in (("/usr/bin/podman", True), ("/usr/bin/docker", False)):
        assert ("--format" in images.command(engine, ALL["runtime"], base, "mesh")) == kept


def test_who_has_docker_may_build_with_podman(tmp_path, monkeypatch):
    for engine in ("docker", "podman"):
        (tmp_path / engine).write_text(f'#!/bin/sh\necho {engine} "$@" >> {tmp_path}/asked\n')
        (tmp_path / engine).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    base = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
    for chosen in ([], ["--engine", "podman"]):
        monkeypatch.setattr(sys, "argv", ["images.py", "build", "runtime", "--base", base, *chosen])
        assert images.main() == 0
    assert [line.split()[0] for line in (tmp_path / "asked").read_text().splitlines()] == ["docker", "podman"]


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_given_what_its_dockerfile_asks_for(name):
    asked = [
        one.partition("=")[0]
        for word, (one, *_) in images.instructions((REPO / ALL[name].dockerfile).read_text())
        if word == "ARG"
    ]
    base = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
    given = dict(word.split("=", 2)[1:] for word in images.command("docker", ALL[name], base, "mesh") if "-arg" in word)
    assert list(given) == asked
    assert given.get("BASE", base) == base
    assert given.get("RUNTIME", "") in ("", images.tag(ALL["runtime"], base, "mesh"))


def test_every_bundled_agent_is_an_image():
    assert set(ALL) == {"runtime", "registry", "gateway", *BUNDLED}


@pytest.mark.parametrize("name", ALL)
def test_what_is_copied_is_there(name):
    context = REPO / ALL[name].context
    for patterns, _ in images.copies(ALL[name]):
        assert all(list(context.glob(pattern)) for pattern in patterns), patterns


def test_the_runtime_holds_all_of_ours_but_agents_of_the_library_and_what_the_gateway_adds():
    runtime = {str(file.relative_to(REPO)) for file in images.files(ALL["runtime"])}
    wanted = set()
    for part in ("gen", "core", "registry", "agents"):
        found = (file for file in (REPO / part / "meshwright").rglob("*") if file.is_file())
        wanted |= {str(file.relative_to(REPO)) for file in found if "__pycache__" not in file.parts}
    of_library = re.compile(rf"{images.LIBRARY}/[^/]+/")
    assert runtime - {"agents/requirements.lock"} == {name for name in wanted if not of_library.match(name)}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_change_in_an_agents_folder_changes_one_digest(tmp_path, name):
    root = tmp_path / "mesh"
    for part in ("gen", "core", "registry", "agents", "gateway", "cli"):
        shutil.copytree(REPO / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = {one.name: images.digest(one, root) for one in images.images(root)}
    file = root / images.LIBRARY / name / "prompts.py"
    file.write_text(file.read_text() + "\n# changed\n")
    after = {one.name: images.digest(one, root) for one in images.images(root)}
    assert {one for one in before if before[one] != after[one]} == {name}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("core/meshwright/core/errors.py", set(ALL)),
        ("agents/requirements.lock", set(ALL)),
        ("gateway/requirements.lock", {"gateway"}),
        ("cli/meshwright/cli/main.py", {"gateway"}),
        ("registry/Dockerfile", {"registry"}),
        ("agents/meshwright/agents/library/planner/Dockerfile", {"planner"}),
        ("agents/meshwright/agents/library/planner/evals.jsonl", set()),
    ],
)
def test_a_change_changes_what_it_is_part_of(tmp_path, file, changed):
    root = tmp_path / "mesh"
    for part in ("gen", "core", "registry", "agents", "gateway", "cli"):
        shutil.copytree(REPO / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = {one.name: images.digest(one, root) for one in images.images(root)}
    (root / file).write_text((root / file).read_text() + "\n")
    after = {one.name: images.digest(one, root) for one in images.images(root)}
    assert {one for one in before if before[one] != after[one]} == changed


def test_another_base_is_another_image():
    first, second = (images.digest(ALL["planner"], base=f"python@sha256:{digit * 64}") for digit in "01")
    assert len({first, second, images.digest(ALL["planner"])}) == 3


@pytest.mark.parametrize("name", [*ALL, "tool"])
def test_an_image_is_no_danger(name):
    dockerfile = "registry/tool.Dockerfile" if name == "tool" else ALL[name].dockerfile
    found = list(images.instructions((REPO / dockerfile).read_text()))
    words = [word for word, _ in found]
    assert words[0] == "ARG"
    assert words.count("FROM") == (2 if name in ("runtime", "gateway") else 1)
    assert "ADD" not in words
    assert not [rest for word, rest in found if word == "FROM" and ":latest" in rest[0]]
    for word, said in found:
        rest = said[0]
        if word in ("ENTRYPOINT", "CMD"):
            assert json.loads(rest), "exec form"
        if word == "RUN" and "pip install" in rest:
            assert "--require-hashes" in rest
            assert "--only-binary=:all:" in rest
        if word == "USER":
            assert rest == "10001:10001"
        if word == "COPY" and "--from=build" not in said:
            assert "--chmod=755" in said, "it cannot be read where the checkout's umask is 077"
    if name == "runtime":
        assert words.index("USER") > max(i for i, word in enumerate(words) if word == "COPY")
    else:
        assert "USER" not in words  # the runtime's stays


def test_the_runtime_is_compiled_when_it_is_built(tmp_path):
    found = list(images.instructions((REPO / ALL["runtime"].dockerfile).read_text()))
    ((place, command),) = [(at, rest[0]) for at, (word, rest) in enumerate(found) if "compileall" in rest[0]]
    assert place > max(at for at, (word, _) in enumerate(found) if word == "COPY")
    assemble(ALL["runtime"], tmp_path)
    words = shlex.split(command.replace("/opt", str(tmp_path / "opt")))
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:]], env={"PATH": os.environ["PATH"]}, check=True, timeout=50)
    modules = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")}
    compiled = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.pyc")}
    assert {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in compiled} == modules


@pytest.mark.parametrize("name", BUNDLED)
async def test_an_agents_image_runs(tmp_path, store, name):
    root = tmp_path / "root"
    assemble(ALL[name], root)
    documents = tmp_path / "documents"
    documents.mkdir()
    port = str(*free_ports(1))
    settings = {"MESHWRIGHT_STORE_URL": store.url, "MESHWRIGHT_DOCS": str(documents), "MESHWRIGHT_MODEL": "offline"}
    async with running(ALL["registry"], root, MESHWRIGHT_STORE_URL=store.url) as registry:
        settings["MESHWRIGHT_REGISTRY"] = await target_of(registry)
        async with (
            contextlib.AsyncExitStack() as others,
            running(ALL[name], root, **settings, MESHWRIGHT_HEALTH_PORT=port) as agent,
        ):
            if name == "reviewer":  # which is ready once there are tools of documents
                other = tmp_path / "researcher"
                assemble(ALL["researcher"], other)
                await target_of(await others.enter_async_context(running(ALL["researcher"], other, **settings)))
            assert await serves(await target_of(agent))
            assert await becomes_healthy(ALL[name], root, agent, port)


@pytest.fixture
def project_image(tmp_path):
    """The image of a new project, on the runtime."""
    for path, text in project("price-desk").items():
        place = tmp_path / "project" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    folder = tmp_path / "project"
    return images.Image("price-desk", str(folder / "Dockerfile"), str(folder), ALL["runtime"])


async def test_a_new_projects_image_runs(tmp_path, store, project_image):
    root = tmp_path / "root"
    assemble(project_image, root)
    settings = {"MESHWRIGHT_STORE_URL": store.url, "MESHWRIGHT_MODEL": "offline"}
    async with running(ALL["registry"], root, MESHWRIGHT_STORE_URL=store.url) as registry:
        settings["MESHWRIGHT_REGISTRY"] = await target_of(registry)
        settings["MESHWRIGHT_HEALTH_PORT"] = port = str(*free_ports(1))
        async with running(project_image, root, **settings) as agent:
            assert await serves(await target_of(agent))
            assert await becomes_healthy(project_image, root, agent, port)


@pytest.mark.parametrize("path", ["examples/lab/Dockerfile", "cli/meshwright/cli/project/Dockerfile.tmpl"])
def test_what_others_copy_can_be_read_whatever_their_umask_is(path):
    found = [said for word, said in images.instructions((REPO / path).read_text()) if word == "COPY"]
    assert all("--chmod=755" in said for said in found)


def test_a_new_projects_image_is_the_runtime_with_its_package(tmp_path, project_image):
    found = list(images.instructions(Path(project_image.dockerfile).read_text()))
    assert [word for word, _ in found] == ["ARG", "FROM", "COPY", "CMD"]  # installs nothing; user and health stay
    assert found[1][1] == ["${RUNTIME}"]
    ignored = (tmp_path / "project/.dockerignore").read_text().splitlines()
    for patterns, _ in images.copies(project_image):
        assert {f"!{pattern}" for pattern in patterns} <= {*ignored}


async def test_the_registrys_image_runs(tmp_path, store):
    assemble(ALL["registry"], tmp_path)
    port = str(*free_ports(1))
    given = {"MESHWRIGHT_STORE_URL": store.url, "MESHWRIGHT_HEALTH_PORT": port}
    async with running(ALL["registry"], tmp_path, **given) as registry:
        assert await serves(await target_of(registry))
        assert await becomes_healthy(ALL["registry"], tmp_path, registry, port)


async def test_a_folder_of_tools_on_the_runtime_runs(tmp_path, store):
    root = tmp_path / "root"
    assemble(ALL["registry"], root)
    folder = root / "opt/tools"
    folder.mkdir(parents=True)
    shutil.copy(REPO / "examples/tools.py", folder)
    async with running(ALL["registry"], root, MESHWRIGHT_STORE_URL=store.url) as registry:
        place = {"MESHWRIGHT_REGISTRY": await target_of(registry), "MESHWRIGHT_STORE_URL": store.url}
        place["MESHWRIGHT_HEALTH_PORT"] = port = str(*free_ports(1))
        async with running(TOOL, root, str(folder / "tools.py"), **place) as host:
            assert await serves(await target_of(host))
            assert await becomes_healthy(TOOL, root, host, port)


async def test_the_gateways_image_runs_and_has_the_command_line(tmp_path, store):
    root = tmp_path / "root"
    assemble(ALL["gateway"], root)
    assemble(ALL["registry"], root)
    async with running(ALL["registry"], root, MESHWRIGHT_STORE_URL=store.url) as registry:
        place = {"MESHWRIGHT_REGISTRY": await target_of(registry), "MESHWRIGHT_FOLDER": str(tmp_path / "shared")}
        place["MESHWRIGHT_HEALTH_PORT"] = port = str(*free_ports(1))
        async with running(ALL["gateway"], root, **place) as gateway:
            assert await serves(await target_of(gateway))
            assert (tmp_path / "shared" / envoy.BOOTSTRAP).exists()
            assert await becomes_healthy(ALL["gateway"], root, gateway, port)
    packages = os.pathsep.join([str(root / "opt/meshwright"), *site.getsitepackages()])
    python = tmp_path / "venv/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    first, *_ = defaults(ALL["gateway"])["PATH"].split(":")
    process = await asyncio.create_subprocess_exec(
        *(f"{root}{first}/meshwright", "store", "acl", "--help"),
        env={"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": packages},
        stdout=asyncio.subprocess.PIPE,
    )
    assert b"--passwords" in (await process.communicate())[0]
    assert process.returncode == 0


def test_images_are_built_on_a_base_that_is_pinned(capsys):
    assert images.build([], "python:3.11-slim", "mesh") == 2
    assert "pinned by digest" in capsys.readouterr().err
    base = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
    line = images.command("docker", ALL["planner"], base, "mesh")
    assert f"--build-arg=RUNTIME={images.tag(ALL['runtime'], base, 'mesh')}" in line
    assert line[-1] == str(REPO / images.LIBRARY / "planner")


def test_an_image_that_is_none_is_told_in_one_line_with_those_that_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["images.py", "publish", "nobody"])
    assert images.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error: no image is called 'nobody': name one of runtime, registry, gateway, ")
    assert told.count("\n") == 1


def test_locks_of_images_hold_what_the_whole_lock_holds():
    def pins(name):
        return set(re.findall(r"^([a-z0-9-]+)==(\S+)", (REPO / name).read_text(), re.MULTILINE))

    whole = pins("requirements.lock")
    for name in ("agents/requirements.lock", "gateway/requirements.lock"):
        text = (REPO / name).read_text()
        assert pins(name) <= whole
        assert text.count("--hash=sha256:") >= len(pins(name))
        assert "://" not in text
