"""What processes cost each other can be measured anywhere, and gradients are added up while others are still made."""

import json
import os
import subprocess
import sys

import pytest
from cologen.training.cli.main import main
from pack import ROOT

pytestmark = pytest.mark.slow

SMALL = "bench scaling --width 128 --double 1 --single 2 --seconds 0.4 --repeats 3 --device cpu --json".split()


def test_two_processes_tell_what_they_cost_each_other():
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *torchrun, str(ROOT / "tests/support/tiny_run.py"), *SMALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["processes"] == 2 and found["efficiency"] == found["alone"] / found["together"]
    assert min(found["alone"], found["together"]) >= found["nap"] == 0.4
    rank, width, experts = 128 * 128 // 3072, 128, 2
    assert found["trained"] == 3 * (2 * 2 * rank * width + 2 * width * experts)


def test_one_process_alone_is_told_how_to_start_two(capsys):
    assert main(SMALL) == 1
    assert "There is one process, expected two or more: torchrun" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["-1", "nan", "1e9", "long"])
def test_a_nap_has_a_length(wrong, capsys):
    with pytest.raises(SystemExit):
        main([*SMALL, f"--seconds={wrong}"])
    assert f"{wrong} is no number from 0 to 3600" in capsys.readouterr().err
