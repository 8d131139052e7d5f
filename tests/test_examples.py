"""The examples for clusters name commands, keys and torchrun options that there are."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from danlu import cli
from danlu.recipe import load_recipe
from tests.conftest import ROOT
from tests.tiny_life import project

SLURM, KUBERNETES = ROOT / "examples" / "slurm.sh", ROOT / "examples" / "kubernetes.yaml"


def slurm() -> list[str]:
    """The arguments of torchrun in the script, with a recipe's name and one machine filled in."""
    script = SLURM.read_text("utf-8").replace("\\\n", " ")
    command = next(line for line in script.splitlines() if line.startswith("srun torchrun"))
    values = {
        "SLURM_JOB_NUM_NODES": "4",
        "DEVICES": "8",
        "SLURM_JOB_ID": "1",
        "HEAD": "node-1",
        "RECIPE": "recipe.toml",
    }
    filled = re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], m[0]), command).replace('"$@"', "")
    return shlex.split(filled)[2:]


def kubernetes() -> list[str]:
    yaml = pytest.importorskip("yaml")
    job: Any = next(each for each in yaml.safe_load_all(KUBERNETES.read_text("utf-8")) if each["kind"] == "Job")
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["torchrun"]
    return list(container["args"])


@pytest.mark.parametrize("arguments", [slurm, kubernetes], ids=["slurm", "kubernetes"])
def test_an_example_starts_danlu_with_keys_that_exist(arguments: Any, tmp_path: Path) -> None:
    options = get_args_parser().parse_args(arguments())
    assert options.module
    assert (options.training_script, options.training_script_args[0]) == ("danlu", "run")
    assert options.nnodes == "4"
    ours = cli._parse(cli._parser(), options.training_script_args)
    assert ours.recipe == "recipe.toml"
    recipe = load_recipe(project(tmp_path), ours.overrides).recipe
    assert recipe.system.parallel == "fsdp"


def test_the_script_of_slurm_is_one() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, check=False).returncode == 0
    assert "--signal=TERM@" in SLURM.read_text("utf-8"), "time to save before the end"
