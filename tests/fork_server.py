"""Start Python processes as forks of a process that has imported TensorFlow.

`python fork_server.py serve SOCKET` imports TensorFlow and forks for each request. A new process is
orphaned, and so becomes a child of whoever started the server (a "subreaper"), which can wait for
it as for any other. It runs its program and ends like a new interpreter.

`python fork_server.py run SOCKET ARGUMENTS` replaces `python ARGUMENTS` in a command line.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["request_process"]


def request_process(
    server: str,
    arguments: Sequence[object],
    streams: Sequence[int],
    folder: str,
    environment: Mapping[str, str],
    first: str = "",
) -> tuple[int, socket.socket]:
    """Request a forked process that runs `python ARGUMENTS`.

    Returns
    -------
    tuple
        The process id, and a connection that is closed when the process ends.
    """
    request = {
        "arguments": list(map(str, arguments)),
        "folder": folder,
        "environment": dict(environment),
        "first": first,
    }
    body = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    # The file descriptors of the standard streams accompany the length of the request.
    socket.send_fds(connection, [len(body).to_bytes(8, "big")], streams)
    connection.sendall(body)
    return int.from_bytes(connection.recv(8), "big"), connection


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each request until standard input closes; return it in the fork."""
    while True:
        ready: list[Any] = [listener, 0]
        ready, _, _ = select.select(ready, [], [])
        if listener not in ready:
            sys.exit()
        connection, _ = listener.accept()
        head, streams, _, _ = socket.recv_fds(connection, 8, 3)
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            body += connection.recv(1 << 16)
        child = os.fork()
        if child == 0:
            child = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == child:
                time.sleep(0.001)  # until it is an orphan: only then can the subreaper wait for it
            connection.sendall(os.getpid().to_bytes(8, "big"))
            connection.detach()  # stays open as long as the process runs
            listener.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            request: dict[str, Any] = json.loads(body)
            return request
        os.waitpid(child, 0)
        connection.close()
        for stream in streams:
            os.close(stream)


def run_program(request: dict[str, Any]) -> None:
    """Run the program of a request in its environment, like the Python interpreter."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # A shell that runs the tests in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.path[0] = ""
    exec(request["first"])
    option, *sys.argv = request["arguments"]
    if option == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        program, sys.argv[0] = sys.argv[0], option
        exec(program, {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.argv.insert(0, option)
        sys.path[0] = str(Path(option).parent)
        runpy.run_path(option, run_name="__main__")


def main() -> None:
    """Serve requests, or run a program through a server."""
    role, server, *arguments = sys.argv[1:]
    if role == "run":
        streams, folder = [0, 1, 2], str(Path.cwd())
        _, connection = request_process(server, arguments, streams, folder, os.environ)
        connection.recv(1)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(server)
        listener.listen(16)
        print("listening", flush=True)
        # TensorFlow must not run here: a fork loses its threads.
        import keras  # noqa: F401

        import actgrid.cli.app
        import actgrid.runs.runs  # noqa: F401

        request = serve(listener)
    run_program(request)


if __name__ == "__main__":
    main()
