"""Plug-ins through the real entry points: packages that the test writes and installs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

README_BLOCK = re.compile(r"```python\n(\"\"\"Red.*?)```", re.DOTALL)
SOURCE_BLOCK = re.compile(r"```python\n(\"\"\"Colours and edges.*?)```", re.DOTALL)


def igpt_with(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "igpt", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False, cwd=site)


def pip_install(
    site: Path, package: str, classes: list[str], source: str, work: Path, group: str = "igpt.datamodules"
) -> None:
    """The real installer, into a folder; offline, since the build backend is installed already."""
    (work / package).mkdir(parents=True)
    (work / package / "__init__.py").write_text(source)
    points = "\n".join(f'{name} = "{package}:{name}"' for name in classes)
    (work / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{package}"\nversion = "1.0"\n'
        f'[project.entry-points."{group}"]\n{points}\n'
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(work)], check=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages: the plug-in of docs/plugins.md, and one that cannot be imported."""
    site = tmp_path_factory.mktemp("site")
    block = README_BLOCK.search((REPO / "docs" / "plugins.md").read_text())
    pip_install(site, "colour_noise_plugin", ["ColourNoise"], block[1], tmp_path_factory.mktemp("work") / "package")
    pip_install(
        site,
        "broken_plugin",
        ["Broken"],
        "import a_module_that_is_not_there\n",
        tmp_path_factory.mktemp("w") / "package",
    )
    block = SOURCE_BLOCK.search((REPO / "docs" / "families.md").read_text())
    work = tmp_path_factory.mktemp("source") / "package"
    pip_install(site, "colours_plugin", ["ColoursAndEdges"], block[1], work, "igpt.sources")
    return site


def test_the_readmes_plugin_works_by_its_short_name_beside_a_broken_one(site):
    done = igpt_with(site, "palette", "--data", "ColourNoise", "--data.count", 120, "--colors", 8, "--out", "noise.npy")
    assert done.returncode == 0, done.stderr
    assert (site / "noise.npy").exists()
    warning = [line for line in done.stderr.splitlines() if "broken_plugin" in line]
    assert len(warning) == 1
    assert "a_module_that_is_not_there" in warning[0]
    assert "Traceback" not in done.stderr


def test_the_readmes_plugin_keeps_the_contract(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    from colour_noise_plugin import ColourNoise

    from igpt.testing import check_data_module

    check_data_module(lambda: ColourNoise(count=100))


def test_the_source_of_thirty_lines_is_probed_by_its_name(site):
    words = ["probe", "--source", "ColoursAndEdges", "--data", "Digits", "--method", "knn", "--out", "found"]
    done = igpt_with(site, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((site / "found" / "probe.json").read_text())
    assert found["layer_names"] == ["colours", "edges"]
    assert found["layers"][1]["test_accuracy"] > found["layers"][0]["test_accuracy"] + 0.2  # grey means say little


def test_the_source_of_thirty_lines_keeps_the_contract(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    from colours_plugin import ColoursAndEdges

    from igpt.testing import check_source

    assert len(SOURCE_BLOCK.search((REPO / "docs" / "families.md").read_text())[1].splitlines()) < 40
    check_source(lambda: ColoursAndEdges(cells=2))
