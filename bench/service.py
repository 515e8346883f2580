"""``python -m bench.service [FOLDER]``: the retrieve service with the encoders of benches.

As ``python -m services.retrieve``, with two more ``EMBEDDING_BACKEND``s: `word-vectors`, as quick
as looking words up, and `cached`, the packaged model whose vectors are kept in the folder.
"""

import sys
from pathlib import Path

from bench.cached_encoder import CachedModel
from bench.word_vectors import NAME, WORD_VECTORS
from services.retrieve.__main__ import build
from services.retrieve.adapters import ENCODERS
from services.retrieve.settings import RetrieveSettings
from services.runtime.server import run
from services.runtime.settings import load

ENCODERS[NAME] = WORD_VECTORS

if __name__ == "__main__":
    if sys.argv[1:]:
        CachedThere = CachedModel.in_folder(Path(sys.argv[1]))
        ENCODERS["cached"] = "bench.service:CachedThere"
        # The registry names a module, and this one runs under another name.
        sys.modules["bench.service"] = sys.modules["__main__"]
    run(build, load(RetrieveSettings))
