# Runs once, when the snapshot is made: what programs may expect to be loaded, and plain refusals where Python would fail obscurely.
# This is for clear messages only. What protects is the process: it has no permission, and no program can change that.
import bisect, collections, copy, datetime, decimal, fractions, functools, hashlib, heapq, io, itertools, json, math, operator
import os, random, re, socket, statistics, string, subprocess, sys, textwrap, threading, time, traceback, typing
import _thread, posix


def refusal(name):
    def refuse(*args, **kwargs):
        raise PermissionError(1, f"{name} does not exist in the sandbox")

    return refuse


for name in (
    "abort execl execle execlp execlpe execv execve execvp execvpe fork forkpty kill killpg popen posix_spawn posix_spawnp "
    "spawnl spawnle spawnv spawnve startfile system"
).split():
    for module in (os, posix):
        if hasattr(module, name):
            setattr(module, name, refusal(f"os.{name}"))
subprocess.Popen.__init__ = refusal("subprocess.Popen")
socket.socket.__init__ = refusal("socket.socket")
_thread.start_new_thread = _thread.start_joinable_thread = refusal("a thread")
threading._start_joinable_thread = refusal("a thread")


class Refused:
    """Refuses the modules that lead from Python to JavaScript."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if is_bridge(name):
            raise PermissionError(1, f"the module {name} does not exist in the sandbox")


def is_bridge(name):
    return name.partition(".")[0] in ("js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core")


def seal():
    """Takes the way to JavaScript out of the import system; called in each process when Python has started."""
    os.urandom(1)  # lets Emscripten find its source of random bytes while it still can
    sys.meta_path[:] = [Refused] + [finder for finder in sys.meta_path if not is_bridge(type(finder).__module__)]
    for name in [name for name in sys.modules if is_bridge(name)] + ["_sandbox"]:
        del sys.modules[name]


sandbox = sys.modules["_sandbox"] = type(sys)("_sandbox")
sandbox.seal = seal
