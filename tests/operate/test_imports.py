"""What a process imports before it serves: nothing that only some settings, tools or commands need."""

import subprocess
import sys

import pytest

OF_SETTINGS = {"anthropic", "genai_prices", "grpc_reflection.v1alpha", "httpx2", "openai", "opentelemetry.exporter"}
OF_TOOLS = {"bs4", "h11", "phonenumbers", "pypdf", "sqlite3", "stdnum", "yaml"}
OF_CERTIFICATES = {"cryptography.x509", "meshwright.core.tls_channel"}
OF_COMMANDS = {"typer"}
HEAVY = OF_SETTINGS | OF_TOOLS | OF_CERTIFICATES | OF_COMMANDS
PROCESSES = {
    "agent": "meshwright.agents.__main__, meshwright.agents.serving",
    "registry": "meshwright.registry.__main__, meshwright.registry.serving",
    "tool host": "meshwright.registry.tool.__main__, meshwright.registry.tool_serving",
    "gateway": "meshwright.gateway.__main__, meshwright.gateway.serving",
}
ALSO = {"gateway": {"yaml"}}
"""The gateway's OpenAPI document has its examples in YAML."""


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_imports_nothing_that_it_may_not_need(name):
    code = f"import sys, {PROCESSES[name]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    loaded = set(done.stdout.split())
    assert "grpc" in loaded
    assert loaded & HEAVY == ALSO.get(name, set())
