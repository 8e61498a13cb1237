"""The C boundary as mypy sees it: what ``lib`` holds is written, with its types, in each layer's ``api.h``."""

from typing import Any

ffi: Any
lib: Any
