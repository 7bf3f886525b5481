"""`list`, `show` and `doctor`: what there is, how it is set, and whether this machine is ready."""

from typing import Annotated

import typer

from mockingjay.cli.options import Sets


def list_names() -> None:
    """List objectives with their presets, frontends, contexts, tasks, corpus layouts and names of representations."""
    from mockingjay.data.corpora import CORPORA
    from mockingjay.downstream.tasks import TASKS
    from mockingjay.encoders.contexts import CONTEXTS
    from mockingjay.encoders.frontends import FRONTENDS
    from mockingjay.objectives import OBJECTIVES
    from mockingjay.open import NAMES
    from mockingjay.settings import preset_names

    for title, names in {
        "objectives": [f"{name} ({', '.join(preset_names(name))})" for name in OBJECTIVES],
        "frontends": FRONTENDS,
        "contexts": CONTEXTS,
        "tasks": TASKS,
        "corpora": CORPORA,
        "representations": NAMES,
    }.items():
        print(f"{title}: {', '.join(names)}")


def show(
    objective: Annotated[str, typer.Argument(help="An objective, as `mockingjay list` names it.")],
    preset: Annotated[str | None, typer.Option("--preset", help="A preset's name or a TOML file.")] = None,
    changes: Sets = None,
) -> None:
    """Print the resolved settings of an objective, every field with its comment."""
    from mockingjay.core.config import to_toml
    from mockingjay.settings import settings

    print(to_toml(settings(objective, preset, changes or ()), comments=True), end="")


def doctor() -> None:
    """Say what this machine has: versions, processor, memory, codecs, disk."""
    import importlib.metadata
    import importlib.util
    import os
    import platform
    import shutil

    import soundfile
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    findings = {
        "mockingjay": importlib.metadata.version("mockingjay-speech"),
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "cuda": cuda,
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{memory:.1f} GiB",
        "disk here": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free",
        "libsndfile": f"{soundfile.__libsndfile_version__}: {', '.join(sorted(soundfile.available_formats()))}",
        "talking": "ready"
        if importlib.util.find_spec("espeakng_loader")
        else "pip install 'mockingjay-speech[talking]'",
    }
    for name, finding in findings.items():
        print(f"{name:<12} {finding}")
