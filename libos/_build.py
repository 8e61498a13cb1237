"""How the two extensions are built: which headers Python sees, which C files stand behind them.

``libos._native`` is C that knows no Python, behind cffi; ``libos._loop`` (``sched/objects/``) is C that holds Python
objects and is linked to none of the former: it gets addresses.

Each layer has one ``api.h``. It is plain C (opaque structs, prototypes, integer constants), and it is given to cffi
as it stands, so what a layer offers to Python can be read on one page. ``net/drive.h`` is one more, for those who drive
a stack from outside. Everything else in a layer's C is private to it, or offered to the layers below in the import
order by its other headers.

``LIBOS_CFLAGS`` adds compiler flags: ``make asan`` uses it for the sanitizers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cffi import FFI

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("sched", "net")
HEADERS = ("sched/api.h", "net/api.h", "net/drive.h")
OBJECTS = "sched/objects"

EXTRA = os.environ.get("LIBOS_CFLAGS", "").split()
COMPILE = [
    "-std=gnu11",
    "-O3",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    *EXTRA,
]


def files(*folders: str, suffix: str) -> list[str]:
    """From the root."""
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*" + suffix))


HEADER_FILES = files(*LAYERS, suffix=".h")

ffi = FFI()
for header in HEADERS:
    ffi.cdef((ROOT / header).read_text())

ffi.set_source(
    "libos._native",
    "#include <stdint.h>\n#include <stddef.h>\n" + "".join(f'#include "{header}"\n' for header in HEADERS),
    sources=[path for path in files(*LAYERS, suffix=".c") if not path.startswith(OBJECTS)],
    depends=HEADER_FILES,
    include_dirs=[str(ROOT)],
    libraries=["dl"],
    extra_compile_args=COMPILE,
    extra_link_args=EXTRA,
)


def loop_extension() -> Extension:
    from setuptools import Extension

    return Extension(
        "libos._loop",
        sources=files(OBJECTS, suffix=".c"),
        depends=HEADER_FILES,
        include_dirs=[str(ROOT)],
        extra_compile_args=[*COMPILE, "-Wno-missing-field-initializers", "-Wno-cast-function-type"],
        extra_link_args=EXTRA,
    )


if __name__ == "__main__":
    ffi.compile(verbose=True)
