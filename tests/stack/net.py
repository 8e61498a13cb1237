"""More than two stacks: ``a`` and ``b`` of :class:`.wire.Wire` with others of ours between them, on the same clock."""

from __future__ import annotations

from typing import Any

from libos.net.stack import Link, Stack
from libos.rand import Rng

from .harness import NEVER, START
from .wire import Wire

SIDES = (("10.0.0.", "fd00::"), ("10.1.0.", "fd01::"))


class Between(Wire):
    """What is between the two is a subclass's: it sets ``between``, pollers with ``run(now)``."""

    def __init__(self, seed: int = 1, **stack: Any) -> None:
        self.rng, self.now = Rng(seed), START
        self.a, self.b = (Stack(self.rng, self.now, **stack) for _ in range(2))
        self.between: list[Any] = []

    def run(self) -> int:
        for _ in range(100_000):
            due = min(each.run(self.now) for each in (self.a, self.b, *self.between))
            if due > self.now:
                return due
        raise AssertionError("it does not come to rest")

    def settle(self) -> None:
        while (due := self.run()) != NEVER:
            self.jump(due)

    def close(self) -> None:
        super().close()
        for each in self.between:
            each.close()


class Routed(Between):
    """``a`` - router - ``b``: each link with abilities of its own."""

    def __init__(self, caps_here: int, caps_there: int, *, seed: int = 1) -> None:
        super().__init__(seed)
        self.router = Stack(self.rng, self.now, forwarding=True)
        self.between = [self.router]
        self.server = {4: "10.1.0.2", 6: "fd01::2"}
        for i, (stack, caps) in enumerate(((self.a, caps_here), (self.b, caps_there))):
            (v4, v6), (other4, other6) = SIDES[i], SIDES[1 - i]
            ours, far = Link.pair(self.rng, mtu=1500, caps=caps)
            index = stack.add_link(ours)
            stack.add_address(index, v4 + "2/24")
            stack.add_address(index, v6 + "2/64")
            stack.add_route(index, other4 + "0/24", v4 + "1")
            stack.add_route(index, other6 + "/64", v6 + "1")
            index = self.router.add_link(far)
            self.router.add_address(index, v4 + "1/24")
            self.router.add_address(index, v6 + "1/64")

    def transfer(self, size: int, family: int, *, seed: int = 7, steps: int = 200_000) -> tuple[str, str]:
        sent, got = super().transfer(size, family, seed=seed, steps=steps)
        assert sent == got
        return sent, got

    def finish(self) -> None:
        self.settle_router()
        super().finish()

    def settle_router(self) -> None:
        """It holds nothing: what it passes on has never been its own."""
        self.run()
        assert self.router.memory()["buffers"] == 0
