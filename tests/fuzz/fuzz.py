"""Runs the fuzz targets under atheris, which follows coverage: ``scripts/fuzz [--seconds N] [NAME ...]``.

A target is a module ``NAME_target.py`` beside this file with ``fuzz_one(data)``, and perhaps ``seeds()`` (inputs to
start from) and ``MAX_BYTES``. Inputs worth keeping are in ``corpus/NAME``; what a run finds goes to build/fuzz/NAME,
with the input of a failure as ``crash-…``, ``timeout-…`` or ``oom-…``. Replay one with ``--replay FILE NAME``, or by
the text that a failure prints of it: ``--replay-text TEXT NAME``.
"""

import argparse
import base64
import hashlib
import importlib.util
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND = ROOT / "build" / "fuzz"
MAX_SECONDS_ONE = 10
MAX_MIB = 2048
MAX_TEXT = 16 << 10
"""Characters of an input that are printed at the most."""


def names() -> list[str]:
    return sorted(path.name.removesuffix("_target.py") for path in HERE.glob("*_target.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_target", HERE / f"{name}_target.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_one(name: str, seconds: int) -> None:
    """Fuzz in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["blockwright"]):
        target = load(name)
    found, corpus = FOUND / name, FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in getattr(target, "seeds", list)():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={MAX_SECONDS_ONE}",
        f"-rss_limit_mb={MAX_MIB}",
        f"-max_len={getattr(target, 'MAX_BYTES', 1 << 20)}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    kept = [str(HERE / "corpus" / name)] if (HERE / "corpus" / name).is_dir() else []
    atheris.Setup([sys.argv[0], str(corpus), *kept, *options], target.fuzz_one)
    atheris.Fuzz()


def run_all(chosen: list[str], seconds: int) -> int:
    """Fuzz each target in a process of its own; the number of those that failed."""
    failed = 0
    for name in chosen:
        before = set(FOUND.glob(f"{name}/*-*"))
        argv = [sys.executable, __file__, "--one", "--seconds", str(seconds), name]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, cwd=ROOT)
        output = done.stdout + done.stderr
        runs = next((line.split()[-1] for line in output.splitlines() if "executed_units" in line), "no")
        if done.returncode or runs == "no":
            failed += 1
            print(f"{name}: FAILED\n{output[-6000:]}")
            for path in sorted(set(FOUND.glob(f"{name}/*-*")) - before):
                print(f"replay: scripts/fuzz --replay {path} {name}")
                if len(text := as_text(path.read_bytes())) <= MAX_TEXT:
                    print(f"replay: scripts/fuzz --replay-text {text} {name}")
        else:
            print(f"{name}: {runs} inputs in {seconds} s, nothing escaped")
    return failed


def as_text(data: bytes) -> str:
    """An input as a word, short where it is empty for the most part."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def from_text(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input, without atheris")
    parser.add_argument("--replay-text", type=from_text, metavar="TEXT", help="the same, for what a failure printed")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    replayed = options.replay.read_bytes() if options.replay else options.replay_text
    if replayed is not None and len(options.names) != 1:
        parser.error("a replay needs the one target to run")
    sys.path.insert(0, str(ROOT))
    if replayed is not None:
        load(options.names[0]).fuzz_one(replayed)
        return 0
    if options.one:
        run_one(options.names[0], options.seconds)
        return 0
    return min(run_all(options.names or names(), options.seconds), 1)


if __name__ == "__main__":
    sys.exit(main())
