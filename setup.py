"""The C half of libos: one cffi API-mode extension, described in ``libos/_build.py``."""

from setuptools import setup

setup(cffi_modules=["libos/_build.py:ffi"])
