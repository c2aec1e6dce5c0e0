"""The router as a process builds it: one model, a chain, or a file of models and rules; and what it answers."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.agents.models.catalog import model_from
from meshwright.agents.models.model import Message, Prompt, ToolSpec
from meshwright.agents.models.offline import OfflineModel
from meshwright.agents.models.router import MOST_MODELS, Router, router_from
from meshwright.agents.models.routes import FileOptions
from meshwright.agents.models.routing import Wish
from meshwright.agents.models.scripted import ScriptedModel
from meshwright.core.errors import SetupError
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice
from meshwright.registry.toolfile import options_of

QUESTION = Prompt("a", "", (Message("user", "Hi."),))
FILE = """
models:
  small: {spec: "scripted:small.yaml", class: fast, context_window: 4000, max_output: 500, timeout_s: 7}
  large: {spec: "scripted:large.yaml", class: best}
  spare: {spec: offline}
rules:
  - {when: {class: [medium, complex], tools: true}, use: [large, small]}
  - {when: {tenants: acme, max_prompt_tokens: 9, budget_left_below: 1}, use: spare}
  - {use: [small, spare]}
"""


async def unheard(notice: RunnerNotice) -> None:
    raise AssertionError(notice)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a script that answers with its own name, and returns the model's spec."""

    def write(name: str) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"agents: {{default: [{{text: I am {name}.}}]}}")
        return f"scripted:{path}"

    return write


@pytest.fixture
def file(tmp_path: Path, script: Callable[[str], str]) -> Callable[[str], str]:
    """Writes a file of models and rules, its scripts beside it."""

    def write(text: str = FILE) -> str:
        for name in ("small", "large"):
            text = text.replace(f"scripted:{name}.yaml", script(name))
        path = tmp_path / "models.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def built(model: Any = "", file: str = "") -> Router:
    return router_from(model, model_from, file=file, timeout_s=60)


async def test_without_anything_it_is_the_offline_model() -> None:
    router = built()
    assert router.names == ("offline",)
    assert router.limit_s == 60
    answer = await router.answer(QUESTION, lambda _: None, wish=Wish(), on_notice=unheard)
    assert (answer.provider, answer.routed_because, answer.is_degraded) == ("offline", "the only model", False)
    await router.close()


def test_a_model_of_ones_own_is_a_chain_of_one() -> None:
    model = OfflineModel()
    assert built(model).candidates[0].model is model


async def test_a_list_is_a_chain_in_its_order(script: Callable[[str], str]) -> None:
    router = built(f"{script('one')}, {script('two')},offline")
    assert router.names == ("scripted:one.yaml", "scripted:two.yaml", "offline")
    assert router.limit_s == 180
    answer = await router.answer(QUESTION, lambda _: None, wish=Wish(), on_notice=unheard)
    assert (answer.text, answer.routed_because) == ("I am one.", "first of the chain")
    answer = await router.answer(QUESTION, lambda _: None, wish=Wish("scripted:two.yaml"), on_notice=unheard)
    assert (answer.text, answer.routed_because) == ("I am two.", "scripted:two.yaml was asked for")


async def test_a_file_names_models_and_says_which_are_asked_for_what(file: Callable[..., str]) -> None:
    router = built(file=file())
    assert router.names == ("small", "large", "spare")
    small = router.candidates[0]
    assert (small.kind, small.limits.context_window, small.limits.max_output, small.limits.timeout_s) == (
        *("fast", 4000),
        *(500, 7),
    )
    assert router.limit_s == 7 + 60 + 60

    async def asked(prompt: Prompt = QUESTION, **wish: Any) -> tuple[str, str]:
        answer = await router.answer(prompt, lambda _: None, wish=Wish(**wish), on_notice=unheard)
        return answer.text, answer.routed_because.partition(":")[0]

    assert await asked() == ("I am small.", "rule 3")
    hard = Prompt("a", "", (Message("user", "Plan it."),), (ToolSpec("t", "", {}),))
    assert await asked(hard) == ("I am large.", "rule 1")
    assert await asked(model="best") == ("I am large.", "best was asked for")
    assert (await asked(tenant="acme", budget_left=0.5))[1] == "rule 2"


def test_an_agents_own_chain_takes_names_and_specs_and_allows_nothing_else(file: Callable[..., str]) -> None:
    router = built("large, offline", file())
    assert router.names == ("large", "offline")


def test_models_that_nobody_may_ask_are_not_built(file: Callable[..., str]) -> None:
    path = file(FILE.replace("spec: offline", "spec: 'scripted:/nowhere'"))
    assert built("small", path).names == ("small",)
    with pytest.raises(SetupError, match=r"models\.yaml: models\.spare\.spec: cannot read the script /nowhere"):
        built(file=path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "there is no model 'nothing'"),
        ("offline,", "there is no model ''"),
        ("offline,offline:0.5", "offline stands twice in the chain"),
        (",".join(["offline"] * (MOST_MODELS + 1)), f"at most {MOST_MODELS}"),
    ],
)
def test_a_chain_that_is_none_is_refused_in_one_line(model: str, message: str) -> None:
    with pytest.raises(SetupError, match=message) as refused:
        built(model)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping of names"),
        ("models: {}", "models: "),
        ("models: {a: {}}", "models.a.spec: is required"),
        ("models: {a: {spec: offline, price: 3}}", "models.a.price: is not known here"),
        ("models: {a: {spec: offline, class: good}}", "models.a.class: must be 'fast' or 'best'"),
        ("models: {a: {spec: offline, timeout_s: 0}}", "models.a.timeout_s: "),
        ("models: {a: {spec: offline, context_window: many}}", "models.a.context_window: "),
        ("models: {A b: {spec: offline}}", "models.A b: a name matches"),
        ("models: {best: {spec: offline}}", "models.best: a name matches"),
        ("models: {a: {spec: offline}}\nrules: [{use: [b]}]", "rules.0.use: there is no model b: there are a"),
        ("models: {a: {spec: offline}}\nrules: [{use: [a, a]}]", "rules.0.use: a stands twice"),
        ("models: {a: {spec: offline}}\nrules: [{use: []}]", "rules.0.use: "),
        ("models: {a: {spec: offline}}\nrules: [{use: a, when: {class: hard}}]", "rules.0.when.class.0: "),
        ("models: {a: {spec: offline}}\nrules: [{use: a, when: {tools: maybe}}]", "rules.0.when.tools: "),
        ("models: {a: {spec: offline}, a: {spec: offline}}", "line 1: a stands twice"),
        ("models: {a: &x {spec: offline}, b: *x}", "line 1: write it out"),
        ("models: [", "line 1: "),
        ("models: {a: {spec: nothing}}", "models.a.spec: there is no model 'nothing'"),
        ("models:\n" + "".join(f"  m{n}: {{spec: offline}}\n" for n in range(33)), "models: "),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line_with_its_place(
    file: Callable[..., str], text: str, message: str
) -> None:
    path = file(text)
    with pytest.raises(SetupError) as refused:
        built(file=path)
    assert refused.value.message.startswith(f"{path}: {message}")
    assert "\n" not in refused.value.message


def test_a_file_that_cannot_be_read_is_named(file: Callable[..., str]) -> None:
    with pytest.raises(SetupError, match=r"/nowhere\.yaml cannot be read"):
        built(file="/nowhere.yaml")
    with pytest.raises(SetupError, match=r"models\.yaml has more than"):
        built(file=file("#" * (2**20 + 1)))


def test_the_files_in_the_documentation_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/models.md").read_text()
    script, routes = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert options_of(FileOptions, yaml.safe_load(routes)).rules
    file = tmp_path / "script.yaml"
    file.write_text(script)
    assert ScriptedModel(file).name == "script.yaml"
