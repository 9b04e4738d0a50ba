"""One process imports torch for many short jobs, which then start as fast as a fork.

    python -m maskrd.preloaded COMMAND...

runs a command, such as Snakemake, and ends with its exit code. Each `python -m maskrd ...` that the command starts asks
this process for a fork of itself, which does the work. So no job imports torch again. The fork uses the caller's files,
folder and environment, obeys its signals and dies with it. If there is no such process, or no longer, a job does its
work itself. Only Linux forks safely with the libraries that we import; on other systems the command runs without this.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from io import BufferedReader

ADDRESS = "MASKRD_PRELOADED"  # environment variable: the socket of the process that has imported all
# In the order in which jobs need them.
MODULES = (
    "maskrd.cli", "maskrd.engine.training", "maskrd.demo.teachers", "maskrd.demo.images", "maskrd.engine.evaluation",
    "maskrd.engine.speed", "maskrd.reporting.tables", "maskrd.reporting.paired",
    "maskrd.reporting.figures", "maskrd.reporting.curves", "maskrd.reporting.report",
)  # fmt: skip


def passed_on() -> list[signal.Signals]:
    """The signals that end a command; SIGHUP is ignored under nohup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def hand_over() -> int | None:
    """Let the preloaded process run this command line. Returns its exit code, or None if there is no such process."""
    address = os.environ.get(ADDRESS)
    if not address:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        for number in passed_on():
            signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
        request = {"words": sys.argv, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        code = connection.recv(1)
    if not code:
        sys.exit("The process that did this work ended without an exit code: it was killed, or it crashed.")
    return code[0]


def run(words: list[str]) -> int:
    """Run a command, and serve the jobs below it until it ends; its exit code."""
    import subprocess
    import tempfile

    if sys.platform != "linux":
        return subprocess.run(words, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="maskrd-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/jobs"
        try:
            listener.bind(address)
        except OSError:  # a long TMPDIR: the address of a socket has 107 characters at most
            return subprocess.run(words, check=False).returncode
        listener.listen(128)
        command = subprocess.Popen(words, env={**os.environ, ADDRESS: address})
        # A terminal's Ctrl-C reaches the command itself, which decides.
        for number in passed_on():
            signal.signal(number, lambda number, frame: command.send_signal(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        serve(listener, command)
        return command.returncode if command.returncode >= 0 else 128 - command.returncode


def serve(listener: socket.socket, command: "subprocess.Popen") -> None:
    """Fork for each connection until the command has ended, and import while none waits."""
    missing, jobs = list(MODULES), []
    while command.poll() is None:
        if select.select([listener], [], [], 0 if missing else 0.1)[0]:
            connection = listener.accept()[0]
            child = os.fork()
            if not child:
                listener.close()
                work(connection)
            connection.close()
            jobs.append(child)
        elif missing:
            importlib.import_module(missing.pop(0))
        jobs = [child for child in jobs if os.waitpid(child, os.WNOHANG)[0] == 0]


def work(connection: socket.socket) -> None:
    """Be the caller's command: read what it asks for, do that, send the exit code, end."""
    code = 1
    try:
        files = socket.recv_fds(connection, 1, 3)[1]
        reader = connection.makefile("rb")
        request = json.loads(reader.readline())
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.setsid()  # the terminal's signals come from the caller
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = request["words"]
        threading.Thread(target=obey, args=(reader,), daemon=True).start()
        code = exit_code(importlib.import_module("maskrd.cli").main)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            connection.sendall(bytes([code & 0xFF]))
        os._exit(code)


def obey(caller: "BufferedReader") -> None:
    """Take the signals that the caller passes on, and die when it has died."""
    main = threading.main_thread().ident
    while number := caller.read(1):
        signal.pthread_kill(main, number[0])
    os.kill(os.getpid(), signal.SIGKILL)


def exit_code(main: "Callable[[], None]") -> int:
    """What Python would end with after this function."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
