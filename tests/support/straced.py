"""What a program changed on its host, by strace: calls between two marks that it sets itself."""

import os
import re

WRITES = re.compile(
    r"""(?<![a-z])(?:openat?|creat)\((?P<open>.*(?:O_WRONLY|O_RDWR|O_CREAT|O_TRUNC).*)\)
      |(?<![a-z])(?P<call>mkdir|mkdirat|mknod|mknodat|symlink|symlinkat|link|linkat|rename|renameat2?|unlink|unlinkat|rmdir
      |chmod|fchmodat2?|chown|lchown|fchownat|utime|utimes|utimensat|futimesat|truncate|setxattr|lsetxattr)\((?P<rest>.*)\)""",
    re.VERBOSE,
)


def changes(log: str, allowed: str) -> tuple[list[str], int]:
    """Calls between begin and end that succeeded in changing what lies outside of `allowed`, and how many did inside.

    strace shows each descriptor with its path; a relative name lies below the descriptor before it, and one without
    a descriptor is told by its path alone.
    """
    outside, seen, active = [], 0, False
    for line in log.splitlines():
        if 'access("/blockwright-' in line:
            active = "-begin" in line
            continue
        match = WRITES.search(line) if active else None
        if match is None or re.search(r"= -1 E", line):
            continue
        text = match["open"] or match["rest"]
        places = re.findall(r"(?:\d+|AT_FDCWD)<([^>]*)>, (?:\"([^\"]*)\")?", text)
        paths = [os.path.join(*place) for place in places] or re.findall(r"\"([^\"]*)\"", text)
        for path in paths:
            absolute = os.path.normpath(path)
            if absolute == allowed or absolute.startswith(allowed + "/"):
                seen += 1
            else:
                outside.append(line)
        if not paths:
            outside.append(line)
    return outside, seen
