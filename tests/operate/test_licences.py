"""Licences: what may be in an image."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / ".ci" / "licences.py"
SPEC = importlib.util.spec_from_file_location("licences", FILE)
licences = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(licences)


@pytest.mark.parametrize(
    ("named", "may"),
    [
        (["MIT"], True),
        (["Apache-2.0 OR BSD-3-Clause"], True),
        (["Apache-2.0 AND BSD-2-Clause"], True),
        (["GPL-3.0-only OR MIT"], True),
        (["Apache-2.0 AND GPL-3.0-only"], False),
        (["GPL-3.0-only"], False),
        (["GNU General Public License v3 (GPLv3)"], False),
        (["GNU Lesser General Public License v2 or later (LGPLv2+)"], True),
        (["MIT", "AGPL-3.0-only"], False),
        (["Other/Proprietary License"], False),
        ([], False),
    ],
)
def test_a_package_is_taken_by_its_licence(named, may):
    assert licences.is_allowed(named) is may


def test_a_document_with_a_licence_that_is_not_on_the_list_fails_and_names_it(tmp_path, capsys):
    good = {"name": "fine", "version": "1", "licenses": [{"license": {"name": licences.PREFIX + "MIT License"}}]}
    bad = {"name": "odd", "version": "2", "licenses": [{"expression": "GPL-3.0-only"}]}
    for components, code in (([good], 0), ([good, bad], 1), ([], 1), ([good, {"name": "mute", "version": "3"}], 1)):
        file = tmp_path / "sbom.json"
        file.write_text(json.dumps({"components": components}))
        assert licences.main([str(file)]) == code
    assert "mute 3: none" in capsys.readouterr().err
