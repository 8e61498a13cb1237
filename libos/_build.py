"""How ``libos._native`` is built: which headers Python sees, which C files stand behind them.

Each layer has one ``api.h``. It is plain C (opaque structs, prototypes, integer constants), and it is given to cffi
as it stands, so what a layer offers to Python can be read on one page. ``net/drive.h`` is one more, for those who drive
a stack from outside. Everything else in a layer's C is private to it, or offered to the layers below in the import
order by its other headers.

``LIBOS_CFLAGS`` adds compiler flags: ``make asan`` uses it for the sanitizers.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("sched", "net")
HEADERS = ("sched/api.h", "net/api.h", "net/drive.h")

ffi = FFI()
for header in HEADERS:
    ffi.cdef((ROOT / header).read_text())

ffi.set_source(
    "libos._native",
    "#include <stdint.h>\n#include <stddef.h>\n" + "".join(f'#include "{header}"\n' for header in HEADERS),
    sources=sorted(str(path.relative_to(ROOT)) for layer in LAYERS for path in (ROOT / layer).rglob("*.c")),
    depends=sorted(str(path.relative_to(ROOT)) for layer in LAYERS for path in (ROOT / layer).rglob("*.h")),
    include_dirs=[str(ROOT)],
    libraries=["dl"],
    extra_compile_args=[
        "-std=gnu11",
        "-O3",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        *os.environ.get("LIBOS_CFLAGS", "").split(),
    ],
    extra_link_args=os.environ.get("LIBOS_CFLAGS", "").split(),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
