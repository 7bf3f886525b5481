"""The house's rules as data: who may import whom, how long a file may be, what its documents must say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mockingjay"

# Each layer may import itself and what stands in a lower row (docs/decisions/0001).
ROWS = [
    {"cli"},
    {"run"},
    {"report", "studies"},
    {"pretrain", "rounds", "open", "downstream"},
    {"settings"},
    {"objectives"},
    {"moves", "train"},
    {"representations"},
    {"encoders", "data"},
    {"audio"},
    {"core"},
]
LEVEL = {name: -row for row, names in enumerate(ROWS) for name in names}
NEVER_OBJECTIVES = {"downstream", "studies", "report", "train", "data"}
BANNED = re.compile(r"utils|helpers|common|misc|manager|handler|expert|runner|^base|^my_|^new_|_v?\d+$")
FILES = sorted(SOURCE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Layers of ours that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mockingjay":
            parts = node.module.split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mockingjay.")}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_is_imported_upward(path):
    here = layer(path)
    if here in ("__init__", "__main__"):
        return
    for name in imported(path):
        assert LEVEL[name] <= LEVEL[here] and (name == here or LEVEL[name] < LEVEL[here] or here in ROWS[3]), name
        assert not (name == "objectives" and here in NEVER_OBJECTIVES)


def test_no_objective_imports_another():
    for path in (SOURCE / "objectives").glob("*.py"):
        if path.stem in ("__init__", "objective"):
            continue
        text = path.read_text()
        for other in (SOURCE / "objectives").glob("*.py"):
            if other.stem not in ("__init__", "objective", path.stem):
                assert f"mockingjay.objectives.{other.stem} " not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short_and_well_named(path):
    lines = len(path.read_text().splitlines())
    assert lines <= (200 if layer(path) == "objectives" else 400)
    assert not BANNED.search(path.stem)


# What runs code that is data, or lets a stranger's file choose what is done; foreign.py alone reads pickle, by torch.
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "code",
    "yaml",
    "tarfile",
    "__future__",
}
CALLS = re.compile(
    r"eval|exec|compile|__import__|breakpoint|os\.(system|popen|exec\w*|spawn\w*)|torch\.(jit\.|hub\.)?load"
    r"|.*\.(extractall|unpack_archive|load_url|load_state_dict_from_url|getoutput|getstatusoutput)"
)
KEYWORDS = {"shell", "allow_pickle", "pickle_module"}
FOREIGN = SOURCE / "representations" / "foreign.py"


def unsafe(source: str) -> list[str]:
    """Lines of a source that break the rule."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            imported = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            bad = bool(MODULES & {name.split(".")[0] for name in imported})
        elif isinstance(node, ast.ExceptHandler):
            bad = node.type is None or bool({"Exception", "BaseException"} & names(node.type) and not reraises(node))
        elif isinstance(node, ast.Call):
            keywords = {keyword.arg for keyword in node.keywords if ast.unparse(keyword.value) != "False"}
            bad = bool(CALLS.fullmatch(ast.unparse(node.func)) or KEYWORDS & keywords)
            bad |= ast.unparse(node).endswith("weights_only=False)")
        else:
            continue
        found += [f"{node.lineno}: {ast.unparse(node).splitlines()[0]}"] * bad
    return found


def names(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def reraises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in handler.body)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_unsafe_is_called(path):
    allowed = {"from pickle import UnpicklingError", "torch.load(path, map_location='cpu', weights_only=True)"}
    found = unsafe(path.read_text())
    assert {line.split(": ", 1)[1] for line in found} == (allowed if path == FOREIGN else set()), found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import dill", "import yaml", "import tarfile", "import marshal",
        "eval('1')", "exec('1')", "compile('1', '', 'eval')", "__import__('os')", "os.system('x')", "os.popen('x')",
        "os.execvp('x', [])", "subprocess.run('x', shell=True)", "run('x', shell=yes)", "torch.load('x')",
        "torch.load('x', weights_only=True)", "torch.jit.load('x')", "torch.hub.load('x', 'y')",
        "f(weights_only=False)", "read(x, allow_pickle=True)", "archive.extractall()", "shutil.unpack_archive('x')",
        "try:\n    x\nexcept:\n    pass", "try:\n    x\nexcept Exception:\n    pass",
        "try:\n    x\nexcept (OSError, BaseException):\n    pass",
    ],
)  # fmt: skip
def test_what_is_unsafe_is_found(line):
    assert unsafe(line)


def test_every_objective_cites_its_paper():
    from mockingjay.objectives import OBJECTIVES

    for name, objective in OBJECTIVES.items():
        document = __import__(objective.__module__, fromlist=["_"]).__doc__
        assert re.search(r"arXiv \d{4}\.\d{5}|ICASSP|Interspeech|ACL|NeurIPS", document), name
        assert "Differs from the paper" in document, name


def test_the_public_names_are_sorted_and_there():
    import mockingjay

    assert mockingjay.__all__ == sorted(
        mockingjay.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    for name in mockingjay.__all__:
        assert getattr(mockingjay, name) is not None
