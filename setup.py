"""The C half of libos, two extensions: see ``libos/_build.py``."""

import runpy

from setuptools import setup

setup(cffi_modules=["libos/_build.py:ffi"], ext_modules=[runpy.run_path("libos/_build.py")["loop_extension"]()])
