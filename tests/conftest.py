import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where bytecode is not kept, each of some fifty processes compiles the same files again: half a minute of three.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
sys.dont_write_bytecode = False

SPEECH = Path(__file__).parents[2] / "shared" / "speech"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--golden", action="store_true", help="write the golden losses anew")
    parser.addoption("--trials", type=int, default=6, help="how often runs are killed and resumed")
    parser.addoption(
        "--fuzz", type=int, help="how many spoilt inputs each test of them tries, instead of its own number"
    )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.drill)
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "real" in item.keywords and not SPEECH.exists():
            item.add_marker(pytest.mark.skip(reason="real: no ../shared/speech"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def fuzz(request):
    """How many spoilt inputs are asked for; None where each test decides."""
    return request.config.getoption("--fuzz")


@pytest.fixture(scope="session")
def speech():
    """The folder of real speech."""
    return SPEECH


@pytest.fixture(scope="session")
def talking(tmp_path_factory):
    """The embedded corpus in small: 48 utterances of 24 voices, 1.5 minutes."""
    from mockingjay.data.talking import talking

    return talking(tmp_path_factory.mktemp("cache"), minutes=1.5)


@pytest.fixture(scope="session")
def trained(talking, tmp_path_factory):
    """The folder of a run that the command line pre-trained for six steps; copy it before changing it."""
    from command import works

    folder = tmp_path_factory.mktemp("trained") / "run"
    works("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", folder, "--steps", 6)
    return folder
