"""Script of a process that imports TensorFlow once and forks for each program to be run.

Each request on standard input is a number of bytes, and with it the three standard streams of the
new process; so many bytes of JSON follow. The answer is the new process's id. The new process is
orphaned, and so becomes a child of whoever started the server (a "subreaper"), which can wait for
it as for any other. It runs its program and ends as every interpreter does.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from typing import Any


def run_program(request: dict[str, Any]) -> None:
    """Do what `python ARGUMENTS` does, in the environment of the request."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # A shell that runs tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.path[0] = ""
    exec(request["first"])
    option, program, *arguments = request["arguments"]
    sys.argv = [option, *arguments]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c"
        exec(program, {"__name__": "__main__", "__builtins__": __builtins__})


def main() -> None:
    """Fork for each request; return in the new process only, which then ends."""
    requests = socket.socket(fileno=os.dup(0))
    # What TensorFlow uses all along; nothing of it is run here, so there are no threads yet.
    import keras  # noqa: F401

    import actgrid.cli.app
    import actgrid.pipeline.runs  # noqa: F401

    while True:
        head, streams, _, _ = socket.recv_fds(requests, 8, 3)
        if not head:
            os._exit(0)
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            body += requests.recv(1 << 16)
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild:
                requests.sendall(grandchild.to_bytes(8, "big"))
                os._exit(0)
            requests.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            run_program(json.loads(body))
            return
        os.waitpid(child, 0)
        for stream in streams:
            os.close(stream)


if __name__ == "__main__":
    main()
