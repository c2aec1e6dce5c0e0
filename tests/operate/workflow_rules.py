"""What has to hold of every workflow: each rule takes all files, and returns what is wrong, in words."""

import re
import subprocess
from functools import cache
from typing import NamedTuple

import yaml

from tests.operate.delivering import REPO, images

FOLDER = REPO / ".github/workflows"
TARGETS = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
PINNED = re.compile(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
LOCAL = re.compile(r"\./\.github/workflows/([a-z]+\.yml)")
EVENTS = {"pull_request", "push", "workflow_dispatch", "workflow_call"}
"""Events of which those that come from forks see no secret."""
KNOWN = {"contents": "read", "packages": "write"}
ON_MAIN = "github.event_name != 'pull_request' && github.ref == 'refs/heads/main'"
TRUSTED = re.compile(
    r"(?:github\.(?:ref|event_name|actor|token)|inputs\.name|vars\.[A-Z_]+|secrets\.[A-Z_]+|needs\.image\.outputs\.digest"
    r"|steps\.\w+\.outputs\.(?:digest|verdict)|success\(\)|'[\w.-]*'|==|!=|&&|\|\||!|\s)*"
)
LONGEST_MINUTES = 90


class Workflow(NamedTuple):
    """One workflow: its text, and what that says."""

    text: str
    said: dict

    @property
    def events(self):
        return self.said[True]  # YAML 1.1 takes `on` for that

    def jobs(self):
        return self.said["jobs"].items()

    def steps(self):
        return [(name, step) for name, job in self.jobs() for step in job.get("steps", ())]


@cache
def workflows():
    """Reads all workflows, by the file's name."""
    return {path.name: read(path.read_text()) for path in sorted(FOLDER.glob("*"))}


def read(text):
    return Workflow(text, yaml.safe_load(text))


def steps_are_targets(all_):
    """A step is an action, or one target of the Makefile: whoever sits at a machine can do the same."""
    for name, one in all_.items():
        for _, step in one.steps():
            words = step.get("run", "make help").split(" ")
            if len(words) != 2 or words[0] != "make" or words[1] not in TARGETS:
                yield f"{name}: {step['run']}"


def actions_are_pinned(all_):
    """What is not ours is pinned by a commit, and says which version that is; what is ours is there."""
    for name, one in all_.items():
        for line in re.findall(r"uses:.*", one.text):
            local = LOCAL.fullmatch(line.removeprefix("uses: "))
            if not (PINNED.fullmatch(line) or (local and local[1] in all_)):
                yield f"{name}: {line}"
    pins = {line for one in all_.values() for line in re.findall(r"uses: (\S+/\S+)@", one.text)}
    whole = {line for one in all_.values() for line in re.findall(r"uses: (\S+/\S+@.*)", one.text)}
    if len(pins) != len(whole):
        yield f"one action at two commits: {sorted(whole)}"


def permissions_are_least(all_):
    """A workflow may nothing; a job says what it needs, and only what brings an image to its registry writes."""
    for name, one in all_.items():
        if one.said.get("permissions") != {}:
            yield f"{name}: has permissions for all of its jobs"
        for job_name, job in one.jobs():
            told = job.get("permissions")
            if not told or not told.items() <= KNOWN.items():
                yield f"{name}/{job_name}: {told}"
            elif "packages" in told and job_name not in ("deliver", "image"):
                yield f"{name}/{job_name}: writes packages"


def jobs_end(all_):
    """A job that runs something ends in time."""
    for name, one in all_.items():
        for job_name, job in one.jobs():
            if "steps" in job and not 0 < job.get("timeout-minutes", 0) <= LONGEST_MINUTES:
                yield f"{name}/{job_name}: ends after {job.get('timeout-minutes')} minutes"


def one_at_a_time(all_):
    """There are no two runs of a workflow at one place; a delivery is never cut off by the next one."""
    for name, one in all_.items():
        if "workflow_call" in one.events:
            continue
        told = one.said.get("concurrency", {})
        if told.get("group") != f"{name.removesuffix('.yml')}-${{{{ github.ref }}}}":
            yield f"{name}: group {told.get('group')}"
        if told.get("cancel-in-progress") != "${{ github.event_name == 'pull_request' }}":
            yield f"{name}: cancels {told.get('cancel-in-progress')}"


def strangers_see_nothing(all_):
    """What is not on main is only verified; secrets are those of the environment, of the steps that need them."""
    for name, one in all_.items():
        if not set(one.events) <= EVENTS:
            yield f"{name}: {set(one.events) - EVENTS}"
        for job_name, job in one.jobs():
            if ("secrets" in job or "deliver" in job.get("uses", "")) and job.get("if") != ON_MAIN:
                yield f"{name}/{job_name}: delivers what is not on main"
            if "secrets." in str({key: value for key, value in job.items() if key != "steps"}):
                yield f"{name}/{job_name}: a secret for all of its steps"
            if "secrets." in str(job.get("steps")) and job.get("environment") != "production":
                yield f"{name}/{job_name}: a secret outside of the environment"
            for step in job.get("steps", ()):
                if "secrets." in str({key: value for key, value in step.items() if key != "env"}):
                    yield f"{name}/{job_name}: a secret that is no variable of a step"


def nothing_is_interpolated(all_):
    """No expression stands in a command; elsewhere stand only values that no stranger writes."""
    for name, one in all_.items():
        for _, step in one.steps():
            if "${{" in step.get("run", ""):
                yield f"{name}: {step['run']}"
        for told in re.findall(r"\$\{\{(.*?)\}\}", one.text):
            if not TRUSTED.fullmatch(told):
                yield f"{name}: {told}"


def checkouts_keep_no_token(all_):
    """A token is not left in the work tree, where anything that a step runs finds it."""
    for name, one in all_.items():
        for _, step in one.steps():
            if "checkout" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
                yield f"{name}: leaves its token"


def filters_are_digests(all_):
    """An image's workflow runs for the files that its digest covers, and for no others."""
    tracked = tracked_files()
    for image in images.images():
        if not image.below:
            continue
        one = all_.get(f"{image.name}.yml")
        if one is None:
            yield f"{image.name} has no workflow"
            continue
        for event in ("pull_request", "push"):
            wrong = {path for path in tracked if matches(path, one.events[event]["paths"])} ^ covered(image)
            if wrong:
                yield f"{image.name}: {event}: {sorted(wrong)[:3]}"


def deliveries_take_back(all_):
    """A version is judged, then promoted, or rolled back unless that is left to somebody."""
    job = all_["deliver.yml"].said["jobs"]["production"]
    told = [(step["run"], step.get("if", "")) for step in job["steps"] if "run" in step]
    unless = "${{ !success() && steps.canary.outputs.verdict && steps.canary.outputs.verdict != 'undecided' }}"
    steps = [("make install", ""), ("make canary", ""), ("make promote", ""), ("make rollback", unless)]
    if told != steps:  # what is installed sees no secret
        yield f"deliver.yml: {told}"
    if job.get("environment") != "production" or job.get("needs") != "image":
        yield "deliver.yml: production is not protected"
    for name, one in all_.items():
        deliver = one.said["jobs"].get("deliver", {})
        if deliver and (deliver.get("needs") != "verify" or deliver["with"] != {"name": name.removesuffix(".yml")}):
            yield f"{name}: delivers what was not verified"


RULES = [
    steps_are_targets,
    actions_are_pinned,
    permissions_are_least,
    jobs_end,
    one_at_a_time,
    strangers_see_nothing,
    nothing_is_interpolated,
    checkouts_keep_no_token,
    filters_are_digests,
    deliveries_take_back,
]


def matches(path, patterns):
    """Whether a path filter of GitHub's lets a path through: `*` and `?` stop at a slash, `**` does not."""
    return any(translated(pattern).fullmatch(path) for pattern in patterns)


@cache
def translated(pattern):
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts))


@cache
def covered(image):
    """Returns the files that an image's digest covers, as far as git knows them."""
    below = covered(image.below) if image.below else set()
    found = {str(path.relative_to(REPO)) for path in images.files(image)} | {image.dockerfile}
    return below | (found & tracked_files())


@cache
def tracked_files():
    words = ["git", "-C", str(REPO), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split("\n")) - {""}
