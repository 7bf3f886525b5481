"""A machine that refuses: full and read-only disks, a folder that is taken, little of everything. One sentence each."""

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import pytest
import soundfile
from command import mockingjay, refuses, works
from speech_like import corpus, speech_like
from test_pretrain import command, contents, final, steps_of
from toy_learner import forked

from mockingjay import pretrain
from mockingjay.train import checkpoint
from mockingjay.train.ledger import locked

NEWNS = 0x20000  # a mount namespace of one's own
ALIVE = 30  # seconds until a run has told its first step


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whole(speech, tmp_path_factory):
    """A run of eight steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    works(*command(speech, out))
    return out


@pytest.fixture(scope="module")
def half(whole, tmp_path_factory):
    """The same after six steps."""
    out = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints" / "step-000008")
    shutil.rmtree(out / "encoder")
    return out


# ---- full and read-only


def on_a_small_disk(mounted, kilobytes, said, *words):
    """Run a command with a file system of so many kilobytes for it alone; exit 99 where mounting is not allowed."""
    options = f"size={kilobytes}k" if kilobytes else "ro"
    if ctypes.CDLL(None).unshare(NEWNS):
        os._exit(99)
    for each in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "tmpfs", str(mounted)]):
        if subprocess.run(["mount", *each], capture_output=True).returncode:
            os._exit(99)
    found = mockingjay(*words)
    said.write_text(found.err)
    trace = [str(path) for path in mounted.rglob(".tmp-*")]
    os._exit(98 if trace or list(mounted.rglob("encoder/config.json")) else found.code)


# 1.3 MB would do: what a run of eight steps takes.
@pytest.mark.parametrize(
    "kilobytes", [20, 120, *(pytest.param(4 + 12 * n, marks=pytest.mark.slow) for n in range(20)), 0]
)
def test_a_full_and_a_read_only_disk(speech, whole, tmp_path, kilobytes):
    mounted, said = tmp_path / "mounted", tmp_path / "said"
    mounted.mkdir()
    words = [str(word) for word in command(speech, mounted / "run")]
    process = forked(on_a_small_disk, mounted, kilobytes, said, *words)
    process.join(600)
    if process.exitcode == 99:
        pytest.skip("mounting is not allowed here")
    assert process.exitcode == 5, said.read_text()
    lines = said.read_text().splitlines()
    expected = "No space|disk full|needed for checkpoints" if kilobytes else "Read-only file system"
    assert len(lines) == 1 and str(mounted) in lines[0]
    assert any(word in lines[0] for word in expected.split("|")), lines


@pytest.mark.parametrize(
    "bytes", [0, 2_000, 20_000, *(pytest.param(n * 1_500, marks=pytest.mark.slow) for n in range(20))]
)
def test_a_limit_on_file_sizes(speech, whole, half, tmp_path, bytes):
    """The last whole checkpoint stays as it was, and with room the run goes on to the same bits."""
    out, said = tmp_path / "run", tmp_path / "said"
    shutil.copytree(half, out)
    before = contents(out / "checkpoints")
    process = forked(limited, [str(word) for word in command(speech, out)], said, bytes)
    process.join(600)
    assert process.exitcode == 5, said.read_text()
    lines = said.read_text().splitlines()
    assert len(lines) == 1 and "file size limit reached" in lines[0] and str(out) in lines[0], lines
    assert contents(out / "checkpoints") == before and not list(out.rglob(".tmp-*"))
    if bytes == 20_000:
        works(*command(speech, out))
        assert final(out) == final(whole) and steps_of(out) == list(range(9))


def limited(words, said, bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    found = mockingjay(*words)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    said.write_text(found.err)
    os._exit(found.code)


# ---- two runs in one folder


def test_a_second_run_is_refused_before_it_reads_or_writes_anything(speech, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "scan", pytest.fail)
    with locked(tmp_path / "run"):
        refuses(5, rf"another run is writing here \(process {os.getpid()} on ", *command(speech, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


# ---- little of everything


@pytest.mark.slow
def test_a_poor_machine(tmp_path):
    """A fresh process with 128 files, the C locale, no home, no network, another time zone and an odd name.

    It too gives a sign of life soon after its start: loss, speed and the time that is left.
    """
    data = corpus(tmp_path / "data")
    soundfile.write(data / "é.wav", speech_like(16_000, 0).numpy(), 16_000)
    odd = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Chatham"}
    homeless = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **odd, **homeless}
    words = [str(word) for word in command(data, tmp_path / "run", 2)]
    began, line, pipe = time.monotonic(), b"nothing yet", subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", POOR, *words], env=environment, stdout=pipe, stderr=pipe) as process:
        patience = threading.Timer(600, process.kill)
        patience.start()
        while line and not line.startswith(b"step "):
            line = process.stdout.readline()
        waited = time.monotonic() - began
        _, errors = process.communicate()
        patience.cancel()
    assert process.returncode == 0 and not errors, errors.decode()
    assert waited < ALIVE and re.match(rb"step 1/2  loss \d+\.\d+  \d+ s of audio per s  .*  \d+ s left$", line), line
    found = checkpoint.load_latest(tmp_path / "run" / "checkpoints", pytest.fail)
    assert found is not None and found.step == 2 and (tmp_path / "run" / "encoder" / "config.json").exists()


POOR = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
def refuse(*_, **__):
    raise OSError(101, "Network is unreachable")
socket.socket.connect = socket.getaddrinfo = refuse
sys.argv[0] = "mockingjay"
from mockingjay.cli.main import main
main()
"""


def test_a_folder_that_has_been_removed(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refuses(5, "current folder: it has been removed, expected one that is there; change to another", "list")
    os.chdir(tmp_path)  # lest nobody can go back to where it was
