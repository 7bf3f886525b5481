"""The promise: nothing in a foreign checkpoint runs, and whatever it claims is refused in one sentence."""

import importlib
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from child import one_line, survey
from releases import MEL, Transformer, states
from test_fuzz import spoil

from mockingjay.representations.foreign import read_foreign

# Pickles: what they call, and with what; "canary" is a file that none of them may make.

CALLS = {
    "os.system": ("touch canary",),
    "posix.system": ("touch canary",),
    "os.popen": ("touch canary",),
    "os.execvp": ("touch", ["touch", "canary"]),
    "os.mkdir": ("canary",),
    "os.putenv": ("CANARY", "1"),
    "subprocess.Popen": (["touch", "canary"],),
    "subprocess.check_output": (["touch", "canary"],),
    "builtins.eval": ("open('canary', 'w')",),
    "builtins.exec": ("open('canary', 'w')",),
    "builtins.open": ("canary", "w"),
    "builtins.__import__": ("antigravity",),
    "builtins.getattr": (1, "real"),
    "builtins.compile": ("1", "x", "eval"),
    "builtins.breakpoint": (),
    "io.open": ("canary", "w"),
    "_io.FileIO": ("canary", "w"),
    "pathlib.Path": ("canary",),
    "shutil.rmtree": ("canary",),
    "importlib.import_module": ("antigravity",),
    "runpy.run_path": ("canary.py",),
    "pickle.loads": (b"N.",),
    "_pickle.loads": (b"N.",),
    "marshal.loads": (b"N",),
    "timeit.timeit": ("open('canary', 'w')",),
    "cProfile.run": ("open('canary', 'w')",),
    "pdb.run": ("open('canary', 'w')",),
    "code.interact": (),
    "ctypes.CDLL": ("canary.so",),
    "webbrowser.open": ("http://127.0.0.1",),
    "socket.create_connection": (("127.0.0.1", 9),),
    "urllib.request.urlopen": ("http://127.0.0.1:9",),
    "functools.partial": (print,),
    "operator.methodcaller": ("x",),
    "types.SimpleNamespace": (),
    "torch.load": ("canary",),
    "torch.hub.load": ("x", "x"),
    "torch.jit.load": ("canary",),
    "torch.utils.cpp_extension.load_inline": ("x", "int x;"),
    "numpy.load": ("canary", None, True),
    "numpy.save": ("canary", 1),
    "importlib.metadata.version": ("torch",),
    "mockingjay.core.files.write_atomically": ("canary", b""),
    "logging.config.dictConfig": ({},),
    "asyncio.run": (None,),
    "multiprocessing.Process": (),
    "yaml.load": ("1",),
}


class Call:
    """Pickles as a call of a name."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        module, _, name = self.name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name), CALLS[self.name]
        except ImportError:
            return importlib.import_module, (module,)


def holding(name, place):
    """A release's states with a call somewhere inside."""
    made, call = states(Transformer(80, 1), MEL), Call(name)
    if place == "weights":
        made["Transformer"]["encoder.layer.0.output.dense.bias"] = call
    elif place == "settings":
        made["Upstream_Config"]["transformer"]["hidden_size"] = call
    else:
        made["Args"].hook = call
    return made


def raw(name, protocol):
    return pickle.dumps({"Transformer": {"x": Call(name)}}, protocol)


@pytest.mark.parametrize("place", ["weights", "settings", "arguments", "old file", "bare pickle"])
def test_no_pickle_runs_anything(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(name):
        path = tmp_path / "states.ckpt"
        try:
            if place == "bare pickle":
                path.write_bytes(raw(name, 2 + len(name) % 4))
            else:
                made = holding(name, "weights" if place == "old file" else place)
                torch.save(made, path, _use_new_zipfile_serialization=place != "old file")
        except (pickle.PicklingError, TypeError):
            return ["not to be pickled", ""]
        return one_line(read_foreign, path)

    assert len(CALLS) >= 36
    outcomes = {name: (fate, said) for name, fate, said in survey(read, CALLS)}
    assert {name: said for name, (fate, said) in outcomes.items() if fate or said[0] != "CheckpointError"} == {}
    assert all("which might run code" in said[1] or "weights and plain" in said[1] for _, said in outcomes.values())
    assert [path.name for path in tmp_path.iterdir()] == ["states.ckpt"]


def zipped(program, *more, compression=zipfile.ZIP_STORED):
    """A file of torch.save around a pickle of one's own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {"data.pkl": program, "version": b"3\n", "byteorder": b"little", **dict(more)}.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def storage(key=b"0", count=4, kind=b"FloatStorage"):
    """A persistent id, as torch writes it."""
    name = struct.pack("<I", len(key)) + key
    return b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX" + name + b"X\x03\0\0\0cpuK" + bytes([count]) + b"tQ"


PROGRAMS = {
    "nothing": b"",
    "stop": b".",
    "no stop": b"}",
    "underflow": b"0000.",
    "mark missing": b"t.",
    "build on none": b"NNb.",
    "reduce of none": b"N)R.",
    "setitem on none": b"NNNs.",
    "memo missing": b"h\x09.",
    "unknown opcode": b"\x01.",
    "appends to none": b"N(NNe.",
    "deep list": b"(" * 100_000 + b"l" * 100_000 + b".",
    "deep tuple": b"N" + b"\x85" * 100_000 + b".",
    "bytearray of a TiB": b"cbuiltins\nbytearray\nL1099511627776L\n\x85R.",
    "long of a GiB": b"\x8b\0\0\0\x40.",
    "string of 4 GiB": b"X\xff\xff\xff\xff.",
    "not UTF-8": b"X\1\0\0\0\xff.",
    "global without end": b"cos",
    "global of bytes": b"c\xff\xff\n\xff\n.",
    "stack global": b"\x8c\2os\x8c\6system\x93.",
    "instance": b"(ios\nsystem\n.",
    "object": b"(cos\nsystem\no.",
    "extension": b"\x82\1.",
    "persistent text": b"P0\n.",
    "size of a TiB": b"ctorch\nSize\n((L1099511627776L\nttR.",
    "tensor of a TiB": b"ctorch\nFloatTensor\nL1099511627776L\n\x85R.",
    "storage missing": storage() + b".",
    "storage short": storage(count=200) + b".",
    "id of nothing": b"NQ.",
    "state of a list": b"]}(X\1\0\0\0xNub.",
    "dictionary of lists": b"}]Ns.",
    "counter": b"ccollections\nCounter\nN\x85R.",
    "named tuple": b"ccollections\nOrderedDict\nK\x01\x85R.",
    "complex": b"cbuiltins\ncomplex\n(X\1\0\0\0xtR.",
    "device": b"ctorch\ndevice\n(X\x04\0\0\0evilt R.",
    "encode": b"c_codecs\nencode\n(X\1\0\0\0xX\x03\0\0\0hextR.",
    "stand-in as weights": b"}X\x0b\0\0\0Transformercargparse\nNamespace\n)\x81}(X\1\0\0\0xNubs.",
    "stand-in as names": b"}X\x0b\0\0\0Transformer}cargparse\nNamespace\n)\x81Nss.",
}


def test_programs_by_hand_are_refused(tmp_path):
    def read(item):
        name, packing = item
        program = b"\x80\x02" + PROGRAMS[name]
        path = tmp_path / "states.ckpt"
        path.write_bytes(zipped(program, ("data/0", bytes(16))) if packing == "zip" else program)
        return one_line(read_foreign, path)

    items = [(name, packing) for name in PROGRAMS for packing in ("zip", "bare")]
    assert {
        item: (fate, said) for item, fate, said in survey(read, items) if fate or said[0] != "CheckpointError"
    } == {}


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "states.ckpt"
    path.write_bytes(
        zipped(b"\x80\x02" + storage() + b".", ("data/0", bytes(1 << 26)), compression=zipfile.ZIP_DEFLATED)
    )
    ((_, fate, said),) = survey(lambda path: one_line(read_foreign, path), [path])
    assert (fate, said[0]) == ("", "CheckpointError") and "is compressed, expected a file of torch.save" in said[1]


def test_spoilt_states(tmp_path, fuzz):
    """Cut, flipped and overwritten bytes, in both of torch's layouts."""
    whole = []
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save(states(Transformer(80, 1), MEL), buffer, _use_new_zipfile_serialization=new)
        whole.append(buffer.getvalue())
    path = tmp_path / "states.ckpt"

    def read(seed):
        random = np.random.default_rng(seed)
        content, start = whole[seed % 2], int(random.integers(len(whole[seed % 2]) - 300)) * int(random.integers(2))
        path.write_bytes(content[:start] + spoil(content[start:], random))
        return one_line(read_foreign, path)

    found = [(seed, fate, said) for seed, fate, said in survey(read, range(fuzz or 150))]
    assert [row for row in found if row[1] or row[2][1].startswith("not one")] == []
