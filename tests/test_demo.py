"""`danlu demo` as a user runs it, in a network namespace where every way out but the loopback is counted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Raises the loopback of a fresh namespace, runs a command there, and reports how many packets found no way out.
INSIDE = """
import fcntl, json, socket, struct, subprocess, sys
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh", b"lo", 1 | 0x40))
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
names, values = [line.split()[1:] for line in open("/proc/net/snmp") if line.startswith("Ip:")]
six = dict(line.split() for line in open("/proc/net/snmp6"))
attempts = int(dict(zip(names, values))["OutNoRoutes"]) + int(six["Ip6OutNoRoutes"])
print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr, "attempts": attempts}))
"""


def alone(*command: str, cwd: Path) -> dict[str, object]:
    """Run a command without any network but the loopback."""
    namespace = ["unshare", "--map-root-user", "--net", sys.executable, "-c", INSIDE]
    if not shutil.which("unshare") or subprocess.run([*namespace[:3], "true"], capture_output=True).returncode:
        pytest.skip("this machine grants no network namespace")
    environment = os.environ | {"HOME": str(cwd), "XDG_CACHE_HOME": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*namespace, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_the_count_sees_an_attempt(tmp_path: Path) -> None:
    code = "import socket; s = socket.socket(); s.connect_ex(('192.0.2.1', 80))"
    assert alone(sys.executable, "-c", code, cwd=tmp_path)["attempts"] == 1


@pytest.mark.timeout(300)
def test_the_whole_life_without_a_network(tmp_path: Path) -> None:
    demo = (sys.executable, "-m", "danlu", "demo", "--budget", "45s", "--out", "life")
    first = alone(*demo, cwd=tmp_path)
    assert first["code"] == 0, first["err"]
    assert first["attempts"] == 0
    runs = tmp_path / "life" / "runs"
    folder = next(runs.glob("life-*/answers.json")).parent
    answers = json.loads((folder / "answers.json").read_text())["answers"]
    assert len(answers) == 3
    assert all(set(answer) == {"prompt", "answer"} for answer in answers)
    assert "<svg" in (folder / "report.html").read_text()
    metrics = json.loads(next(runs.glob("store/evaluate-*/metrics.json")).read_text())["models"]
    assert 0.5 < metrics["5-gram"]["bits_per_byte"] < 3.0
    assert metrics["base"]["bits_per_byte"] < 3.3  # ln V of the vocabulary is about 3.4 bits per byte here

    model = next(runs.glob("store/finetune-*/config.json")).parent
    told = alone(sys.executable, "-m", "danlu", "predict", "--json", str(model), "def add(a, b):", cwd=tmp_path)
    assert (told["code"], told["attempts"]) == (0, 0)
    assert isinstance(json.loads(str(told["out"])), str)  # a model of seconds may well say nothing but newlines
