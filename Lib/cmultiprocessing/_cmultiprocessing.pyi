# SPDX-License-Identifier: PSF-2.0
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, TypeVar

_T = TypeVar("_T")

class OwnerDiedWarning(RuntimeWarning):
    """A lock was taken over from a process that was killed while it held the lock."""

class MemoryLimitError(MemoryError):
    """The machine or a control group refuses the shared memory that an operation needs."""

def pin_target(ticket: bytes | None, /) -> None:
    """Say for which process this thread pickles shared objects from now on; None: for anybody.

    Args:
        ticket: what `family_reserve` returned for the process.
    """

def _rebuild(type: type, ticket: bytes, /, *extra: object) -> object:
    """Unpickle a shared object."""

def family_start() -> None:
    """Make the memory that this process and its children share, if this process is in none.

    Raises:
        OSError: no descriptor or no address space is left.
    """

def family_reserve() -> tuple[int, bytes]:
    """Claim a place for a child that does not inherit this process's memory.

    Returns:
        (descriptor, ticket): hand the descriptor to the child, then close it; the ticket goes with the
        start data to `family_join` in the child.

    Raises:
        OSError: no descriptor or no place in the table of processes is left.
    """

def family_join(descriptor: int, ticket: bytes, /) -> None:
    """Take the place that `family_reserve` claimed in the parent; owns the descriptor.

    Raises:
        ValueError: the ticket is damaged.
        RuntimeError: it belongs to another family, or to another build of this package.
    """

def family_leave() -> None:
    """This process ends in order: what it still holds locked stays locked."""

def family_collect() -> bool:
    """Give back now what nobody holds any more; False when another process is at it."""

def family_statistics() -> dict[str, int]:
    """Counters about the shared memory, sizes in bytes; empty before there is any."""

# --- descriptors that forked children do not keep ---

def private_pipe() -> tuple[int, int]:
    """A pipe (read end, write end), both close-on-exec, whose write end forked children close.

    Raises:
        OSError: no descriptor is left.
    """

def private_keep(fd: int, /) -> None:
    """Have forked children close `fd`."""

def private_close(fd: int, /) -> None:
    """Close `fd`, unless it is none of those that forked children close, or was closed by a fork."""

class OwnedDescriptor:
    """A descriptor that is closed together with its owner.

    Args:
        fd: the descriptor.
    """

    def __init__(self, fd: int) -> None: ...
    def __call__(self) -> None:
        """Close it; a second time does nothing."""

# --- children ---

def fork_child(
    bootstrap: Callable[..., int], leashed: bool, names: dict[str, Any], first: Callable[[], object] | None, /
) -> tuple[int, int, int]:
    """Fork a child that runs `bootstrap(parent_sentinel=...)` and ends, as with `leave`.

    Args:
        bootstrap: the _bootstrap of its process object.
        leashed: whether it is killed when this process ends.
        names: those of the module process.
        first: what the child does before anything else that is Python; None for nothing.

    Returns:
        (pid, sentinel, leash); this process lives for the child until `private_close(leash)`.

    Raises:
        OSError: no process or no descriptor is left; there is no child then.
    """

def watch_child(pid: int, /) -> int:
    """A descriptor that is ready when the child can be reaped. A child that cannot be followed is ended.

    Raises:
        OSError: no descriptor is left.
    """

class Ending:
    """What this process knows of the end of a child.

    Each method is one step: neither a signal handler nor an exception comes between what is taken and what is noted.

    Args:
        pid: the child.
        leash: what `private_pipe` made; closed when the child has ended.
        reports: a pipe that reports come through, the caller's; -1: there is none.
        told: the exit code if the pipe has told it already.
    """

    def __init__(self, pid: int, leash: int, reports: int = -1, told: int | None = None) -> None: ...
    @property
    def told(self) -> int | None:
        """The exit code as it was told; the child may live still."""

    @property
    def over(self) -> bool:
        """Whether no further report will come."""

    def listen(self, timeout: float | None, /) -> bool:
        """Wait until a report has told the exit code, or nobody is left to tell it; whether `told` is known.

        Args:
            timeout: seconds; None for ever; 0: only what is there.

        Raises:
            OSError: the pipe is closed.
        """

    def note(self, code: int, /) -> int:
        """The child has ended, and was reaped. Only the first code counts, and is returned."""

    def reap(self) -> int | None:
        """Reap this child of this process if it has ended; its exit code, None while it runs.

        Raises:
            ChildProcessError: somebody else reaped it.
        """

    def give_up(self) -> None:
        """No report is expected any more: a code that was not told stays unknown."""

def wait_readable(fd: int, timeout: float | None, /) -> bool:
    """Wait until a descriptor is ready for reading, at most `timeout` seconds; whether it is."""

def become(names: dict[str, Any], process: object, parent_sentinel: int | None, /) -> None:
    """In a child: take the parent's place in the names of the module process."""

def join_threads() -> None:
    """Wait for the threads that a child started, if there was a way to start one."""

def flush_std_streams() -> None:
    """Write out what stdout and stderr hold; streams that are missing or closed do not matter.

    Raises:
        OSError: what a stream held is lost.
    """

def leave(code: int, names: dict[str, Any], /) -> NoReturn:
    """The end of a child: exit handlers, then the family is told, then os._exit.

    Args:
        code: exit code.
        names: those of the module process, among them _run_late_handlers.
    """

def leash_arm(read_end: int, /) -> None:
    """Die by SIGKILL when the parent dies. At once if it is dead.

    Args:
        read_end: the child's end of the leash. It stays open until this process ends.
    """

# --- the fork server ---

def packet_pair() -> tuple[int, int]:
    """Two connected sockets that keep messages whole, close-on-exec.

    Raises:
        OSError: no descriptor is left.
    """

def packet_send(fd: int, data: bytes | memoryview, fds: Sequence[int], /) -> None:
    """Send one message with copies of descriptors; waits for room.

    Raises:
        OSError: nobody can receive it any more, or a descriptor is closed.
        ValueError: too many descriptors.
    """

def get_traits() -> bytes:
    """The umask and the signal mask of this thread, for set_traits().

    Raises:
        OSError: /proc is not there.
    """

SERVER_IDLE_MS: int
"""Time without a request after which a child of the fork server that waits ends."""
REQUEST_DATA_MOST: int
"""Bytes of name and start data that a request has room for."""
REQUEST_OWN_FILES: int
"""Descriptors that every request carries."""

def request_head(
    leashed: bool, has_tracker: bool, in_file: bool, name: bytes, preparation_size: int, traits: bytes, ticket: bytes, /
) -> bytes:
    """The beginning of a request to the fork server, but for the key.

    Args:
        leashed: whether the child ends with this process.
        has_tracker: whether the first further descriptor is the resource tracker's.
        in_file: whether the next one is the file with the start data.
        name: of the process, UTF-8.
        preparation_size: bytes of start data that come before the process object.
        traits: from get_traits().
        ticket: from family_reserve().

    Raises:
        ValueError: traits or ticket are damaged.
    """

def fork_server(
    control_fd: int,
    key: bytes,
    most: int,
    known: bytes | None,
    directory: bytes,
    names: dict[str, Any],
    load: Callable[[bytes], Any],
    example: bytes | None,
    adopt: Callable[[int, list[int]], None],
    /,
) -> tuple[bytes | int, int] | None:
    """All of the fork server's life, and of its children until they are processes.

    Args:
        control_fd: the server's end of the sockets. In its children the starter's has that number.
        key: 32 bytes that every request begins with.
        most: how many children may wait for work.
        known: what is prepared here, pickled; None if a child has to prepare something in any case.
        directory: with what is known: the working directory; empty if it is not to be changed.
        names: those of the module process.
        load: unpickles bytes.
        example: a process object, pickled, or None: children that wait unpickle it beforehand.
        adopt: called in a child with (descriptor of the resource tracker or -1, list of descriptors) if any came with
            the request.

    Returns:
        None at the end, in the server and in children that waited. In a child that has something to prepare: its start
        data (bytes, or the file with them), its end of the leash.

    Raises:
        OSError: no descriptor is left.
        Exception: in a child, what unpickling the process object raises.
    """

def ignore_interrupts(for_good: bool, /) -> None:
    """In the fork server: no SIGINT. Its children do at SIGINT what it did before.

    Args:
        for_good: whether that is what Python code wants, and its children, too.
    """

# --- synchronisation (documented on the types themselves) ---

SEM_VALUE_MAX: int

class Lock:
    """A non-recursive lock, shared between processes and threads.

    Args:
        ctx: accepted for compatibility; a lock works under every start method.
        robust: whether the lock is taken over from a holder that was killed (with OwnerDiedWarning). A holder that
            exits in order leaves it locked, as documented.
    """

    def __init__(self, *, ctx: object = None, robust: bool = True) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock: True if it is held now, False if it could not be had within `timeout` seconds."""

    def release(self) -> None:
        """Let go of the lock, whoever holds it.

        Raises:
            ValueError: nobody holds it.
        """

    def locked(self) -> bool:
        """Whether the lock is held by anybody now."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def owner_died(self) -> bool:
        """Whether the lock was ever taken over from a process that was killed while it held it."""

    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...
    def _after_fork(self) -> None: ...

class RLock:
    """A recursive lock, shared between processes and threads. Taken over from a holder that was killed.

    Args:
        ctx: accepted for compatibility; a lock works under every start method.
    """

    def __init__(self, *, ctx: object = None) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock once more: True if it is held now, False if it could not be had within `timeout` seconds."""

    def release(self) -> None:
        """Let go of the lock once.

        Raises:
            AssertionError: this thread does not hold it.
        """

    def locked(self) -> bool:
        """Whether the lock is held by anybody now."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def owner_died(self) -> bool:
        """Whether the lock was ever taken over from a process that was killed while it held it."""

    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _is_mine(self) -> bool: ...
    def _count(self) -> int: ...
    def _after_fork(self) -> None: ...

class Semaphore:
    """A counter that acquire() takes from and release() adds to, shared between processes.

    Args:
        value: the initial value, 0 to SEM_VALUE_MAX.
        ctx: accepted for compatibility; a semaphore works under every start method.
        robust: whether what a process acquired comes back when it is gone without having released it. At most 4096
            then.
    """

    def __init__(self, value: int = 1, *, ctx: object = None, robust: bool = False) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one off the value: True, or False if it was 0 for `timeout` seconds."""

    def release(self) -> None:
        """Add one to the value and wake one that waits.

        Raises:
            ValueError: the value is at its maximum already.
        """

    def get_value(self) -> int:
        """How many acquire() calls would succeed now."""

    def locked(self) -> bool:
        """Whether acquire() would have to wait."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...
    @property
    def _semlock(self) -> Self: ...
    @property
    def handle(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def name(self) -> None: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _after_fork(self) -> None: ...

class BoundedSemaphore(Semaphore):
    """A Semaphore whose value cannot be released above the initial one."""

class Condition:
    """A place to wait for notifications, shared between processes.

    The dead neither swallow a notification nor hold up who notifies.

    Args:
        lock: a Lock or RLock of this package; None: a new RLock.
        ctx: accepted for compatibility; a condition works under every start method.
    """

    def __init__(self, lock: Lock | RLock | None = None, *, ctx: object = None) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the condition's lock."""

    def release(self) -> None:
        """Let go of the condition's lock."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification, take the lock again: True if notified within `timeout` seconds.

        Raises:
            AssertionError: this thread does not hold the lock.
        """

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until predicate() is true, at most `timeout` seconds in all; its last value."""

    def notify(self, n: int = 1) -> None:
        """Wake the n that have waited longest and live, or all if they are fewer.

        Raises:
            AssertionError: this thread does not hold the lock.
        """

    def notify_all(self) -> None:
        """Wake all that wait."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, lock: Lock | RLock, /) -> Self: ...
    @property
    def _lock(self) -> Lock | RLock: ...
    def _sleepers(self) -> int: ...

class Event:
    """A flag shared between processes that others can wait for.

    Args:
        ctx: accepted for compatibility; an event works under every start method.
    """

    def __init__(self, *, ctx: object = None) -> None: ...
    def is_set(self) -> bool:
        """Whether the flag is true."""

    def set(self) -> None:
        """Make the flag true, and wake all that wait for it."""

    def clear(self) -> None:
        """Make the flag false. Who waited when it was set goes on nevertheless."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the flag is, or was since the call began, true within `timeout` seconds."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, /) -> Self: ...

class _BufferWrapper:
    """Zeroed memory that processes share, with the buffer interface: cmultiprocessing.heap.BufferWrapper.

    Args:
        size: bytes.

    Raises:
        ValueError: a negative size.
        OverflowError: larger than an address can say.
        MemoryLimitError: more than the machine or a control group has left.
    """

    _heap: object
    @property
    def size(self) -> int: ...
    @property
    def _address(self) -> int: ...
    def __init__(self, size: int) -> None: ...
    def create_memoryview(self) -> memoryview:
        """A writable view of the bytes; the memory lives as long as the view does."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, size: int, /) -> Self: ...

class _SynchronizedBase:
    """A ctypes object and the lock that guards it: cmultiprocessing.sharedctypes.SynchronizedBase.

    Args:
        obj: a ctypes object, normally one in shared memory.
        lock: anything with acquire() and release(); None makes an RLock.
        ctx: the context that makes it.
    """

    _obj: Any
    _lock: Any
    acquire: Any
    release: Any
    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None: ...
    def get_obj(self) -> Any:
        """The ctypes object itself, to be used without the lock."""

    def get_lock(self) -> Any:
        """The lock that every access takes; hold it to read and write in one go."""

    def __enter__(self) -> bool: ...
    def __exit__(self, *args: object) -> None: ...
    def __reduce__(self) -> tuple[object, ...]: ...

class _Synchronized(_SynchronizedBase):
    """A number (or another simple ctypes object) and its lock."""

    value: Any
    def add(self, n: float, /) -> Any:
        """Add to the value in one step, and return what it is then. TypeError where it is no number."""

    def exchange(self, new: float, /) -> Any:
        """Store a value, and return the one that was there, in one step. TypeError where it is no number."""

    def compare_exchange(self, expected: float, new: float, /) -> bool:
        """Store `new` if the value is `expected`, in one step; whether it was. TypeError where it is no number."""

class _SynchronizedArray(_SynchronizedBase):
    """A ctypes array and its lock; each access to an item or a slice takes it."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: int | slice, /) -> Any: ...
    def __setitem__(self, key: int | slice, value: Any, /) -> None: ...

class _SynchronizedString(_SynchronizedArray):
    """An array of characters and its lock."""

    value: bytes
    raw: bytes

def load_block_type() -> type[_BufferWrapper]:
    """The type that cmultiprocessing.heap calls BufferWrapper."""

def load_sharedctypes(
    typecodes: dict[str, type],
    entries: dict[type, tuple[int, Callable[..., Any]]],
    describe: Callable[[Any], tuple[int, Callable[..., Any]]],
    cell_code: Callable[[type], tuple[str, int]],
    reduce: Callable[[_SynchronizedBase], tuple[object, ...]],
    /,
) -> tuple[
    Callable[..., Any],
    Callable[[Any], Any],
    type[_SynchronizedBase],
    type[_Synchronized],
    type[_SynchronizedArray],
    type[_SynchronizedString],
]:
    """Called once by cmultiprocessing.sharedctypes, which knows ctypes.

    Args:
        typecodes: type codes and their types.
        entries: types and their (size, type.from_buffer).
        describe: called with any other type; gives its entry, or raises TypeError.
        cell_code: called with the type of an object or array; gives (type code, size) of a number that may be read
            behind ctypes' back, or ('', 0).
        reduce: __reduce__() of synchronized objects.

    Returns:
        (raw_value, new_value, SynchronizedBase, Synchronized, SynchronizedArray, SynchronizedString)
    """

class Barrier:
    """Lets a fixed number of threads, of any processes, wait for each other. Only the living count.

    Args:
        parties: how many.
        action: called without arguments by one of them before all go on.
        timeout: default of wait(), in seconds; None: for ever.
        ctx: accepted for compatibility; a barrier works under every start method.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> int:
        """Wait for the other parties; an integer from 0 to parties - 1, another one for each.

        Raises:
            BrokenBarrierError: the barrier is broken or reset, or `timeout` seconds are over, which breaks it.
        """

    def reset(self) -> None:
        """Make the barrier empty and whole; who waits gets BrokenBarrierError."""

    def abort(self) -> None:
        """Break the barrier: who waits and who comes gets BrokenBarrierError."""

    @property
    def parties(self) -> int:
        """How many threads go on together."""

    @property
    def n_waiting(self) -> int:
        """How many living threads wait now."""

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""

    def __reduce__(self) -> tuple[object, ...]: ...
    @classmethod
    def _attach(cls, ticket: bytes, action: Callable[[], object] | None, timeout: float | None, /) -> Self: ...

def queue_setup(names: dict[str, Any], register_late: Callable[[], object], /) -> None:
    """Say how queues pickle; called by `cmultiprocessing.queues` when it is imported.

    Args:
        names: globals of that module; `_ForkingPickler`, `Full`, `Empty` and `ShutDown` are looked up there whenever
            they are needed.
        register_late: called after modules were imported, to register reducers for their types.
    """

class SimpleRingQueue:
    """Native half of `cmultiprocessing.SimpleQueue`.

    Args:
        maxsize: how many objects there may be; 0 or less: as many as memory allows.
        joinable: whether unfinished objects are counted.

    Raises:
        MemoryLimitError: no memory for the queue.
    """

    def __init__(self, maxsize: int | None = None, joinable: bool = False) -> None: ...
    @property
    def _closed(self) -> bool:
        """Whether this process closed the queue."""

    @property
    def _reader_closed(self) -> bool:
        """Whether this process closed its reader."""

    @property
    def _writer_closed(self) -> bool:
        """Whether this process closed its writer."""

    @property
    def _used(self) -> bool:
        """Whether this process has put anything."""

    @property
    def _maxsize(self) -> int:
        """How many items there may be."""

    def put(self, obj: Any) -> None:
        """Put an object into the queue: it is there when this returns.

        Raises:
            Exception: whatever pickling it raises; the queue is unchanged.
            ShutDown: the queue was shut down.
            OSError: this process has closed it.
            MemoryLimitError: the limit of memory that its text names.
        """

    def get(self) -> Any:
        """Take the oldest object out; waits for one.

        Raises:
            ShutDown: the queue was shut down, and is empty.
            OSError: this process has closed it.
        """

    def empty(self) -> bool:
        """Whether the queue is empty now.

        Raises:
            OSError: this process has closed it.
        """

    def _poll(self, timeout: float | None = 0.0, /) -> bool:
        """Whether there is anything to take, waiting for it at most `timeout` seconds (None: for ever)."""

    def _fileno(self) -> int:
        """A descriptor that is readable while there is something to take; starts a native thread.

        Raises:
            OSError: the reader is closed, or no descriptor is left.
        """

    def _close(self, how: Literal["queue", "reader", "writer"], /) -> None:
        """Close the queue, or an end of it, for this process."""

    def _ticket(self) -> bytes:
        """The queue as bytes, for a pickle inside the family of processes."""

    def _attach(self, ticket: bytes, /) -> None:
        """Become the queue of a ticket; instead of `__init__`.

        Raises:
            ValueError: not a ticket.
            RuntimeError: the queue belongs to another family of processes, or is gone.
        """

class RingQueue(SimpleRingQueue):
    """Native half of `cmultiprocessing.Queue` and `JoinableQueue`."""

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue: it is there, complete, when this returns.

        Args:
            obj: any object that can be pickled; it is pickled now.
            block: whether to wait while the queue is full.
            timeout: seconds to wait at most; None: for ever; negative: not at all.

        Raises:
            Full: there was no space in time.
            ShutDown: the queue was shut down.
            ValueError: this process has closed the queue.
            Exception: whatever pickling it raises; the queue is unchanged.
            MemoryLimitError: the limit of memory that its text names.
        """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object out of the queue.

        Args:
            block: whether to wait while the queue is empty.
            timeout: seconds to wait at most; None: for ever; negative: not at all.

        Returns:
            The object; what it consists of is private memory of this process.

        Raises:
            Empty: there was nothing in time.
            ShutDown: the queue was shut down, and is empty.
            ValueError: this process has closed the queue.
        """

    def put_nowait(self, obj: Any) -> None:
        """put(obj, False)."""

    def get_nowait(self) -> Any:
        """get(False)."""

    def put_many(self, objects: Iterable[Any], block: bool = True, timeout: float | None = None) -> None:
        """Put many objects, in order; cheaper than one by one. Others' objects may come in between.

        Args:
            objects: what to put.
            block: as for put().
            timeout: as for put(), for all objects together.

        Raises:
            Full: and what else put() raises. The exception's `put_count` says how many objects are in the queue; the
                others are not.
        """

    def get_many(self, max: int, timeout: float | None = None) -> list[Any]:
        """Take up to `max` objects that are there; waits for the first one only.

        Args:
            max: at most so many, at least 1.
            timeout: seconds to wait at most; None: for ever; 0 and less: not at all.

        Returns:
            1 to `max` objects, oldest first.

        Raises:
            Empty: and what else get() raises.
            Exception: what unpickling an object raised; its attribute `got` is the list of the others.
        """

    def qsize(self) -> int:
        """How many objects are in the queue now."""

    def full(self) -> bool:
        """Whether there are as many objects as fit now."""

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue for every process: put() raises ShutDown from now on, and get() when the queue is empty.

        Args:
            immediate: drop what is in the queue as well.
        """

    def _task_done(self) -> None:
        """One object that was taken has been worked on.

        Raises:
            ValueError: called more often than objects were put.
        """

    def _join(self) -> None:
        """Wait until task_done() was called for every object that was put."""

    def _unfinished(self) -> int:
        """How many objects are unfinished now."""

# --- connections (documented on the type itself) ---

def connection_setup(names: dict[str, Any], register_late: Callable[[], object], /) -> None:
    """Say how connections pickle; called by `connection` when it is imported.

    Args:
        names: globals of that module; _ForkingPickler, BufferTooShort and TimeoutError are looked up there.
        register_late: called after modules were imported, to register reducers for their types.
    """

def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connected ends. Not duplex: the first only receives, the second only sends.

    Raises:
        OSError: no descriptor is left.
    """

def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Those of the objects (connections, sockets, sentinels) that are ready for reading, in their order.

    Args:
        object_list: descriptors, and objects with fileno().
        timeout: seconds to wait for the first; None: for ever; negative: not at all.
    """

class Connection:
    """Whole messages over a socket or a pipe. multiprocessing documentation, 'Connection objects'."""

    _handle: int | None
    _readable: bool
    _writable: bool

    def __init__(self, handle: Any, readable: bool = True, writable: bool = True) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def readable(self) -> bool: ...
    @property
    def writable(self) -> bool: ...
    def send(self, obj: Any) -> None: ...
    def recv(self, timeout: float | None = None) -> Any: ...
    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None: ...
    def recv_bytes(self, maxlength: int | None = None, *, timeout: float | None = None) -> bytes: ...
    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int: ...
    def poll(self, timeout: float | None = 0.0) -> bool: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def _check_closed(self) -> None: ...
    def _check_readable(self) -> None: ...
    def _check_writable(self) -> None: ...
    def _close(self) -> None: ...
    def _send(self, data: Any, /) -> None: ...
    def _recv(self, size: int, /) -> Any: ...
    def _send_bytes(self, data: Any, /) -> None: ...
    def _recv_bytes(self, maxlength: int | None = None, /) -> Any: ...
    def _poll(self, timeout: float | None, /) -> bool: ...
    def _lane_ticket(self) -> tuple[bytes, int] | None: ...
    def _lane_attach(self, lane: tuple[bytes, int], /) -> None: ...
