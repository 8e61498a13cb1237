"""Looking at running machines from outside: ``libos ss``, ``libos nstat``. The other end of :mod:`libos.control`."""
