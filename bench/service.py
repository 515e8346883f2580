"""``python -m bench.service FOLDER``: the retrieve service with encoders that an evaluation needs.

As ``python -m services.retrieve``, with the encoder `cached` that keeps its vectors there.
"""

import sys
from pathlib import Path

from bench.cached_encoder import CachedModel
from services.retrieve.__main__ import build
from services.retrieve.adapters import ENCODERS
from services.retrieve.settings import RetrieveSettings
from services.runtime.server import run
from services.runtime.settings import load

if __name__ == "__main__":
    CachedThere = CachedModel.in_folder(Path(sys.argv[1]))
    ENCODERS["cached"] = "bench.service:CachedThere"
    # The registry names a module, and this one runs under another name.
    sys.modules["bench.service"] = sys.modules["__main__"]
    run(build, load(RetrieveSettings))
