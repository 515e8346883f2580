"""Exit status 0 when the process on this machine's metrics port is SERVING; for containers.

python -m services.runtime.probe 9101
"""

import sys
import urllib.error
import urllib.request

TIMEOUT = 3.0
"""Seconds."""


def main(arguments: list[str]) -> int:
    """Ask ``/health`` on the given port of this machine; 0 when it says 200, else 1."""
    try:
        url = f"http://127.0.0.1:{int(arguments[0])}/health"
        with urllib.request.urlopen(url, timeout=TIMEOUT):
            return 0
    except urllib.error.URLError:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
