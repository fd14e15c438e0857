# SPDX-License-Identifier: PSF-2.0
"""A manager with types of one's own: a class, a generator behind a proxy, and a module's functions.

python examples/newtype.py [fork|spawn|forkserver]
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import Any

import cmultiprocessing as multiprocessing
from cmultiprocessing.managers import BaseManager, BaseProxy


class Account:
    """What lives in the server."""

    def __init__(self) -> None:
        self.balance = 0

    def pay_in(self, amount: int) -> int:
        """Add to the balance and return it."""
        self.balance += amount
        return self.balance

    def _audit(self) -> str:
        return f"audited: {self.balance}"


def squares(limit: int) -> Iterator[int]:
    """0, 1, 4, 9 ... below limit squared."""
    for i in range(limit):
        yield i * i


class IteratorProxy(BaseProxy):
    """Steps through a generator of the server, one call for each item."""

    _exposed_ = ("__next__",)

    def __iter__(self) -> IteratorProxy:
        return self

    def __next__(self) -> Any:
        return self._callmethod("__next__")


def get_operator_module() -> Any:
    """The module itself is the shared object: its functions are the methods."""
    return operator


class Bank(BaseManager):
    """Our manager."""


Bank.register("Account", Account)  # all public methods
Bank.register("AuditedAccount", Account, exposed=("pay_in", "_audit"))
Bank.register("squares", squares, proxytype=IteratorProxy)
Bank.register("operator", get_operator_module)


def customer(account: Any, times: int) -> None:
    """Run in several processes at once."""
    for _ in range(times):
        account.pay_in(1)


def main() -> None:
    """Each part prints what it saw."""
    ctx: Any = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else None)
    with Bank(ctx=ctx) as bank:
        account = bank.Account()  # type: ignore[attr-defined]
        customers = [ctx.Process(target=customer, args=(account, 100)) for _ in range(3)]
        for process in customers:
            process.start()
        for process in customers:
            process.join()
        # Methods run in a thread per client: without a lock of its own Account may miss one now and then.
        print("paid in:", account.pay_in(0))

        audited = bank.AuditedAccount()  # type: ignore[attr-defined]
        audited.pay_in(50)
        print(audited._audit())

        print("squares:", *bank.squares(10))  # type: ignore[attr-defined]

        functions = bank.operator()  # type: ignore[attr-defined]
        print("3 + 4 =", functions.add(3, 4))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
