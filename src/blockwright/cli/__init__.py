"""The command: flags in, one library call, text or JSON out.

Knows: what a shell needs, which is exit codes, one-line errors and signals. Refuses to know: how any job is done.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from blockwright._version import __version__


def main() -> None:
    """Run the command with this process's arguments, and exit as it says."""
    if sys.argv[1:] == ["--version"]:
        # Answered before anything is imported: scripts ask for it often.
        sys.stdout.write(f"blockwright {__version__}\n")
        return
    # To import modules makes many objects and no garbage: looking for cycles at every 700 would cost 5 ms of 80.
    gc.set_threshold(50_000)
    try:
        from blockwright.cli.run import run

        code = run(sys.argv[1:], last=True)
    except KeyboardInterrupt:  # before the command looks after signals itself
        sys.stderr.write("blockwright: interrupted\n")
        code = 130
    if sys.warnoptions and "temporalio" not in sys.modules:  # whose threads do not survive the interpreter's end
        sys.exit(code)  # whoever asks for warnings wants to hear of what was left open
    if "opentelemetry.trace" in sys.modules:
        from blockwright.pipeline.tracing import flush

        flush()
    # To take a large tree apart object by object takes longer than many a build, and the process ends anyway.
    with contextlib.suppress(OSError):  # `run` has flushed, and told of a failure
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
