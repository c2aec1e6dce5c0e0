"""A delivery as somebody starts it: targets of the Makefile, the command line, and the role that it needs."""

import re
import sys

import pytest
import yaml

from k8s.components.rollouts import canary
from meshwright.core.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    SetupError,
    UnavailableError,
)
from tests.operate.api_server import credentials, hash_of, serving
from tests.operate.delivering import DIGESTS, NAME, REPO, Told, answering, cluster, delivering, delivery, image, quiet
from tests.ports import free_ports


class TestByHand:
    def test_a_promoted_version_goes_back_to_a_digest(self, in_cluster):
        made = in_cluster()
        with answering(quiet) as (asked, _):
            one = delivering(asked)
            one.try_out(DIGESTS["good"])
            one.promote("")
            with pytest.raises(SetupError, match="make rollback DIGEST"):
                one.rollback("")
            one.rollback(DIGESTS["stable"])
        assert made.image == image("stable")
        assert made.rollout["status"]["stableRS"] == hash_of(image("stable"))

    def test_what_has_been_promoted_is_not_promoted_again(self, in_cluster):
        made = in_cluster()
        with answering(quiet) as (asked, _):
            delivering(asked).promote("")
        assert made.changes == []

    @pytest.mark.parametrize("digest", ["latest", "sha256:12", "sha256:" + "g" * 64, "sha256:" + "0" * 65, "-x"])
    def test_a_digest_is_a_digest(self, in_cluster, digest):
        made = in_cluster()
        with answering(quiet) as (asked, _), pytest.raises(InvalidRequestError, match="sha256"):
            delivering(asked).try_out(digest)
        assert made.changes == []

    def test_a_rollout_that_does_not_settle_ends_in_time(self, in_cluster, monkeypatch):
        made = in_cluster()
        roll = made.roll
        monkeypatch.setattr(made, "roll", lambda: roll() or made.rollout["status"].update(phase="Progressing"))
        with answering(quiet) as (asked, _), pytest.raises(DeadlineExceededError, match="not healthy"):
            delivering(asked, settled_s=0.2).promote(DIGESTS["good"])

    def test_a_cluster_that_refuses_is_told_in_its_own_words(self, in_cluster):
        in_cluster()
        with answering(quiet) as (asked, _), pytest.raises(UnavailableError, match="not found"):
            delivering(asked, "summarizer").try_out(DIGESTS["good"])

    def test_a_program_that_only_is_called_kubectl(self, tmp_path, monkeypatch):
        for said, error, match in (("{", UnavailableError, "no object"), ("[]", UnavailableError, "no object")):
            (tmp_path / "kubectl").write_text(f"#!/bin/sh\necho '{said}'\n")
            (tmp_path / "kubectl").chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path))
            with pytest.raises(error, match=match):
                cluster.Workload(NAME).image()
        (tmp_path / "kubectl").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
        with pytest.raises(DeadlineExceededError, match="longer than"):
            cluster.kubectl("--namespace=x", "get", "pods", within_s=0.2)
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere/python"))
        with pytest.raises(SetupError, match="kubectl is not here"):
            cluster.Workload(NAME).image()

    @pytest.mark.parametrize("name", ["", "-x", "Researcher", "a b", "a/b", "x" * 64, "a-", "a\n"])
    def test_names_are_no_words_of_a_command_line(self, name):
        for told in ({"name": name}, {"name": NAME, "namespace": name}):
            with pytest.raises(InvalidRequestError):
                cluster.Workload(**told)


class TestCommandLine:
    def told(self, monkeypatch, *words, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["delivery.py", *words])
        return delivery.main()

    def test_a_verdict_is_told_to_the_next_steps(self, in_cluster, monkeypatch, tmp_path, capsys):
        in_cluster()
        monkeypatch.setattr(canary, "LOOKS", 1)
        monkeypatch.setattr(delivery.Delivery, "judge", lambda *_: delivery.Decision(delivery.Verdict.ROLLBACK, "so"))
        with serving(Told, answer=quiet, asked=[]) as url:
            told = {"PROMETHEUS_URL": url, "GITHUB_OUTPUT": str(tmp_path / "output")}
            assert self.told(monkeypatch, "canary", NAME, DIGESTS["good"], **told) == 1
        assert (tmp_path / "output").read_text() == "verdict=begun\nverdict=rollback\n"
        assert capsys.readouterr().out.splitlines()[-1] == "rollback: so"

    def test_credentials_are_a_file_that_nobody_else_reads_and_that_goes(self, in_cluster, monkeypatch, tmp_path):
        in_cluster()
        text = (tmp_path / "config").read_text()
        monkeypatch.delenv("KUBECONFIG")
        seen = []
        monkeypatch.setattr(delivery, "act", lambda *_: seen.append(describe()) or 0)
        assert self.told(monkeypatch, "promote", NAME, CLUSTER_CONFIG=text) == 0
        ((mode, content, left, path),) = seen
        assert (mode, content, left) == (0o600, text, None)
        assert not path.exists()

    def test_what_is_cut_off_says_so_and_can_be_rolled_back(self, in_cluster, monkeypatch, tmp_path, capsys):
        in_cluster()

        def cut(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(delivery.Delivery, "judge", cut)
        with serving(Told, answer=quiet, asked=[]) as url:
            told = {"PROMETHEUS_URL": url, "GITHUB_OUTPUT": str(tmp_path / "output")}
            assert self.told(monkeypatch, "canary", NAME, DIGESTS["good"], **told) == 130
        assert (tmp_path / "output").read_text() == "verdict=begun\n"
        assert "make rollback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "environment", "said"),
        [
            (("promote", "nobody"), {}, "no deployment nobody in the namespace meshwright"),
            (("rollback", "nobody"), {}, "no deployment nobody in the namespace meshwright"),
            (("canary", "nobody", DIGESTS["good"]), {}, "no deployment nobody in the namespace meshwright"),
            (("promote", "Price/Desk"), {}, "AGENT names nothing"),
            (("rollback", NAME), {"KUBECONFIG": "/nowhere/config"}, "set KUBECONFIG"),
            (("promote", NAME), {"PROMETHEUS_URL": "prometheus:9090"}, "PROMETHEUS_URL says where"),
            (("promote", NAME), {"NAMESPACE": "--all"}, "NAMESPACE names nothing"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, in_cluster, monkeypatch, capsys, words, environment, said):
        made = in_cluster()
        assert self.told(monkeypatch, *words, **environment) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert made.changes == []

    def test_a_cluster_that_is_away_is_one_line_without_the_log_of_kubectls_library(
        self, in_cluster, monkeypatch, capsys, tmp_path
    ):
        in_cluster()
        (port,) = free_ports(1)
        (tmp_path / "config").write_text(credentials(f"http://127.0.0.1:{port}"))
        assert self.told(monkeypatch, "rollback", NAME) == 2
        error = capsys.readouterr().err
        assert f"127.0.0.1:{port} was refused" in error
        assert error.count("\n") == 1
        assert "memcache" not in error

    def test_without_a_kubeconfig_one_is_asked_for(self, monkeypatch, capsys, tmp_path):
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert self.told(monkeypatch, "rollback", NAME) == 2
        said = "error: no cluster is named: set KUBECONFIG to the path of a kubeconfig that is there\n"
        assert capsys.readouterr().err == said

    @pytest.mark.parametrize("is_rolled", [True, False])
    def test_an_agent_of_somebodys_own_is_promoted_and_taken_back(self, in_cluster, monkeypatch, capsys, is_rolled):
        made = in_cluster("price-desk", is_rolled=is_rolled)
        assert self.told(monkeypatch, "promote", "price-desk", DIGESTS["good"]) == 0
        assert made.image == image("good", "price-desk")
        assert self.told(monkeypatch, "rollback", "price-desk", DIGESTS["stable"]) == 0
        assert made.image == image("stable", "price-desk")
        assert capsys.readouterr().out.splitlines()[-1] == f"price-desk runs {image('stable', 'price-desk')}"

    def test_a_version_of_somebodys_own_agent_is_judged_by_its_alerts(self, in_cluster):
        in_cluster("price-desk")
        with answering(quiet) as (asked, expressions):
            decision = delivering(asked, "price-desk").try_out(DIGESTS["good"])
        assert decision.verdict is delivery.Verdict.PROMOTE
        assert any('agent="price-desk"' in query for query, _ in expressions)


def describe():
    """What a delivery finds of its credentials."""
    import os
    from pathlib import Path

    path = Path(os.environ["KUBECONFIG"])
    return path.stat().st_mode & 0o777, path.read_text(), os.environ.get("CLUSTER_CONFIG"), path


def test_the_role_in_the_docs_allows_what_is_asked_and_nothing_else(in_cluster):
    (text,) = re.findall(r"```\n(apiVersion: rbac.*?)```", (REPO / "docs/delivery.md").read_text(), re.DOTALL)
    allowed = {
        (group, resource, verb)
        for rule in yaml.safe_load(text)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asked = set()
    for name, is_rolled in ((NAME, True), ("registry", False)):
        for last in (lambda one: one.promote(""), lambda one: one.rollback("")):
            made = in_cluster(name, is_rolled=is_rolled)
            with answering(quiet) as (prometheus_there, _):
                one = delivering(prometheus_there, name)
                one.try_out(DIGESTS["good"])
                last(one)
            asked |= made.asked
    assert asked == allowed
