"""Shell completion: three scripts, and what they ask the command for.

The scripts hand over the line up to the cursor, and get a line of ``TYPE<tab>VALUE<tab>HELP`` for each answer, where
the type is ``plain``, or ``file`` or ``dir`` for what the shell completes itself. Bash breaks words at colons, which
our addresses hold; its script drops what stands before the last one. Nothing that opens an image is imported but
where partitions of one are asked for.

Knows: shells, and what arguments stand for by their names. Refuses to know: what commands do with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string
from click.types import StringParamType

MAX_ANSWERS: Final = 1000

_BASH: Final = r"""# bash completion for blockwright
_blockwright() {
    local line=${COMP_LINE:0:COMP_POINT} kind value help
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            dir) type compopt >/dev/null 2>&1 && compopt -o dirnames ;;
            file) type compopt >/dev/null 2>&1 && compopt -o default ;;
        esac
    done < <(COMP_LINE=$line _BLOCKWRIGHT_COMPLETE=bash_complete "$1" 2>/dev/null)
    local word=${line##*[[:space:]]}
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local before=${word%"${word##*:}"} each
        for each in "${!COMPREPLY[@]}"; do
            COMPREPLY[$each]=${COMPREPLY[$each]#"$before"}
        done
    fi
}
if type compopt >/dev/null 2>&1; then
    complete -o nosort -F _blockwright blockwright
else # bash 3, as macOS has it
    complete -o default -F _blockwright blockwright
fi
"""
_ZSH: Final = r"""#compdef blockwright
_blockwright() {
    local -a plain described
    local kind value help line="${words[1,CURRENT]}"
    (( $+commands[blockwright] )) || return 1
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            plain) if [[ -n $help ]]; then described+=("${value//:/\\:}:$help"); else plain+=("$value"); fi ;;
            dir) _files -/ ;;
            file) _files ;;
        esac
    done < <(COMP_LINE=$line _BLOCKWRIGHT_COMPLETE=zsh_complete blockwright 2>/dev/null)
    (( $#described )) && _describe -V blockwright described
    (( $#plain )) && compadd -V blockwright -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _blockwright "$@"
else
    compdef _blockwright blockwright
fi
"""
_FISH: Final = r"""# fish completion for blockwright
function __blockwright_complete
    set -l line (commandline -cp | string collect)
    for answer in (env COMP_LINE=$line _BLOCKWRIGHT_COMPLETE=fish_complete blockwright 2>/dev/null)
        set -l part (string split \t -- $answer)
        switch $part[1]
            case plain
                echo $part[2]\t$part[3]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
        end
    end
end
complete --no-files --command blockwright --arguments "(__blockwright_complete)"
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


class _Lines(ShellComplete):
    """What all three scripts ask for, and are told."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and that one."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        incomplete = "" if not line or line[-1].isspace() else words.pop()
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what may stand in place of ``incomplete``."""
        found = super().get_completions(args, incomplete)
        return found[:MAX_ANSWERS]

    def format_completion(self, item: CompletionItem) -> str:
        """Return an answer as the scripts read it; what holds a control character is no answer."""
        text = f"{item.value}{item.help or ''}"
        if not text.isprintable():
            return "none"
        return f"{item.type}\t{item.value}\t{item.help or ''}"


def register() -> None:
    """Have click answer our scripts, and arguments know what they stand for."""
    for name in SCRIPTS:
        add_completion_class(
            type(f"{name.title()}Lines", (_Lines,), {"name": name, "source_template": SCRIPTS[name]})
        )


Complete = Callable[[click.Context, str], Iterable[CompletionItem]]


class _Text(StringParamType):
    """Text that completes as ``complete`` says; nothing else about it is different."""

    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what may stand here; nothing where looking for it fails."""
        try:
            return list(self._complete(ctx, incomplete))
        except Exception:  # noqa: BLE001 - a shell that completes wants no traceback, whatever an image holds
            return []


def teach(command: click.Command, path: str) -> None:
    """Have each parameter of ``command`` that takes a text complete as its name and its command say."""
    for parameter in command.params:
        if type(parameter.type) is not StringParamType:
            continue
        name = (parameter.name or "") if parameter.metavar is None else parameter.metavar
        complete = _kind(path, name.strip("[]….").lower().partition("[")[0], parameter.name or "")
        if complete is not None:
            parameter.type = _Text(complete)


_FILES: Final = frozenset(
    {
        "file",
        "host",
        "output",
        "table-file",
        "image",
        "first",
        "second",
        "target",
        "data",
        "hash",
        "source",
        "path",
        "uri",
    }
)


def _kind(path: str, metavar: str, name: str) -> Complete | None:
    """Return how a parameter completes, by the command and by what its help calls it; None for any other text."""
    top = path.partition(" ")[0]
    if top == "fs" and metavar in ("path", "to"):
        return None  # within the image
    if metavar in ("dir", "directory") or name == "directory":
        return lambda _ctx, incomplete: [CompletionItem(incomplete, type="dir")]
    if name == "pool" or (top == "pool" and metavar == "name" and path != "pool create"):
        return lambda _ctx, incomplete: _plain(_pools(), incomplete)
    if top == "volume" and (metavar == "origin" or (metavar == "name" and path not in _NEW)):
        return lambda _ctx, incomplete: _named_volumes(incomplete)
    if top in ("dm", "verity") and metavar == "name" and path not in ("dm create", "verity open"):
        return lambda _ctx, incomplete: _plain(_names("/dev/mapper", but="control"), incomplete)
    if metavar.startswith("device"):
        return lambda _ctx, incomplete: _plain(_devices("nbd" if top == "nbd" else "loop"), incomplete)
    if metavar in ("image", "first", "second", "target", "data", "hash", "source"):
        return lambda _ctx, incomplete: _addresses(incomplete)
    if metavar in _FILES or name in ("kernel", "initrd", "loader", "splash", "devicetree"):
        return lambda _ctx, incomplete: [CompletionItem(incomplete, type="file")]
    return None


_NEW: Final = frozenset({"volume create", "volume snapshot"})


def _plain(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def _addresses(incomplete: str) -> list[CompletionItem]:
    """Return partitions behind the colon of a file, volumes behind ``volume:``, and otherwise files."""
    if incomplete.startswith("volume:") or (incomplete and "volume:".startswith(incomplete)):
        found = _named_volumes(incomplete, "volume:")
        if found or incomplete.startswith("volume:"):
            return found
    image, colon, _ = incomplete.rpartition(":")
    if colon and os.path.isfile(image) and not os.path.exists(incomplete):
        return [item for item in _partitions(image) if item.value.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file")]


def _partitions(image: str) -> list[CompletionItem]:
    from blockwright.address import part_name
    from blockwright.resolve import open_device, table_of
    from blockwright.units import format_size

    with open_device(image, force_unlocked=True) as device:
        found = table_of(device, image)
    return [
        CompletionItem(
            part_name(image, each.number), help=f"{format_size(each.size)} {getattr(each, 'name', '')}".strip()
        )
        for each in found.partitions
    ]


def _pools() -> list[str]:
    from blockwright.volume.spec import pool_names

    return pool_names()


def _volumes() -> list[str]:
    from blockwright.volume import open_pool

    found = []
    for name in _pools():
        with open_pool(name) as driver:
            found += [f"{name}/{each.name}" for each in driver.list()]
    return found


def _named_volumes(incomplete: str, before: str = "") -> list[CompletionItem]:
    """Return volumes by pool and name; where none is so called, by the name alone, if it can only be in one pool."""
    volumes = _volumes()
    found = _plain((f"{before}{each}" for each in volumes), incomplete)
    if found or len(_pools()) != 1:
        return found
    return _plain((f"{before}{each.partition('/')[2]}" for each in volumes), incomplete)


def _names(folder: str, *, but: str = "") -> list[str]:
    try:
        return [name for name in sorted(os.listdir(folder)) if name != but]
    except OSError:
        return []


def _devices(prefix: str) -> list[str]:
    """Return the devices of a driver that are attached: those with a size."""
    found = []
    for name in _names("/sys/block"):
        if name.startswith(prefix):
            with open(f"/sys/block/{name}/size", encoding="ascii") as file:
                if file.read().strip() != "0":
                    found.append(f"/dev/{name}")
    return found
