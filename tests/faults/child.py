"""Run a function over many items where a crash, a hang or a hunger for memory is an outcome and not the end."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from toy_learner import forked

from mockingjay.core.errors import MockingjayError

BUSY = 5  # seconds of the processor an item may take
HANG = 120  # seconds it may take in all, on a machine with more to do
MEMORY = 1 << 30  # bytes that items may take beyond what the process has


def survey(function: Callable, items: Iterable) -> Iterator[tuple[object, str, object]]:
    """Yield (item, "", what the function returned) or (item, what befell it, None).

    The items run one after the other in a forked process. Where it dies, the item it was at is to blame, and another
    process goes on behind it. What the function returns must be JSON's.
    """
    items = list(items)
    done = 0
    while done < len(items):
        receiver, sender = Pipe(duplex=False)
        process = forked(_work, function, items[done:], sender)
        sender.close()
        try:
            while done < len(items):
                fault, value = json.loads(receiver.recv_bytes())
                yield items[done], fault, value
                done += 1
        except EOFError:
            process.join()
            hung = process.exitcode in (-signal.SIGALRM, -signal.SIGPROF)
            fate = "hang" if hung else f"crash with {process.exitcode}"
            yield items[done], fate, None
            done += 1
        process.join()


def _work(function: Callable, items: list, sender: Connection) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        have = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, -1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 speaks of each fault it meets
    for item in items:
        signal.alarm(HANG)
        signal.setitimer(signal.ITIMER_PROF, BUSY)
        try:
            said = ["", function(item)]
        except MemoryError:
            said = ["out of memory", None]
        except BaseException as error:
            said = [f"{type(error).__name__}: {error}", None]
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sender.send_bytes(json.dumps(said).encode())
    sender.close()
    os._exit(0)


def one_line(function, *arguments):
    """What a reader says: nothing, or one sentence of ours."""
    try:
        function(*arguments)
    except MockingjayError as error:
        text = str(error)
        return [type(error).__name__, text if text.isprintable() and "; " in text else f"not one sentence: {text}"]
    return ["", ""]
