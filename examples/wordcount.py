#!/usr/bin/env python3
# SPDX-License-Identifier: PSF-2.0
"""Count the words of a real corpus with processes and queues.

The corpus is the text of the running interpreter's own library (tens of MB), or whatever is named
on the command line.  The program is the plain one::

    files ──tasks──▶ worker 0 ──┐
                     worker 1 ──┼──results──▶ this process: adds up, shows progress
                     worker 2 ──┘

*tasks* carries ``(number, path)``.  A worker reads and counts one file at a time and puts one
``(worker, word, count)`` on *results* for every different word of it, between a message that says
which file it begins and one that says that the file is complete.  So the counts of a file are added
when the file is complete, or not at all: a worker that is killed costs exactly the file that it was
counting, and that file is named.

``--compare`` runs the same functions on the standard library's ``multiprocessing`` and in one
process, checks that the three agree word for word, and prints the times beside each other.  With
``--send files`` a whole file's counts travel in one message instead, which is what one does where
a message is expensive.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import queue
import re
import shutil
import signal
import stat
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TextIO

__all__ = [
    "Corpus",
    "Job",
    "Outcome",
    "Progress",
    "count_here",
    "count_with",
    "find_corpus",
    "main",
    "words_of",
]

SUFFIXES = (".py", ".txt", ".rst")
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})
WORD = re.compile(r"\w+")

# What a worker says about a file. None of them can be a word, because a word is made of \w only.
BEGINS = "<begins>"          # number: the file's place in the corpus
COMPLETE = "<complete>"      # number: how many different words were sent
UNREADABLE = "<unreadable>"  # number: errno
LEAVES = "<leaves>"          # number: 0; the worker's last message

LOOK_AT_WORKERS = 0.2  # seconds without a message until the parent looks who is still alive
GIVE_UP = 30.0  # seconds without a message, with a worker killed, until the rest is given up


class Corpus(NamedTuple):
    """The files to count.

    Attributes:
        paths: the files, largest first: no worker begins a large one when the others are done.
        sizes: their sizes in bytes, in the same order.
        complaints: one line for each thing named on the command line that cannot be read.
    """

    paths: list[str]
    sizes: list[int]
    complaints: list[str]


class Job(NamedTuple):
    """How to count.

    Attributes:
        library: name of the module to use, ``cmultiprocessing`` or ``multiprocessing``.
        start_method: ``fork``, ``spawn`` or ``forkserver``.
        workers: number of processes, at least 1.
        whole_files: send the counts of a file as one message instead of one message per word.
    """

    library: str
    start_method: str
    workers: int
    whole_files: bool


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
        counts: how often each word occurs.
        seconds: wall-clock time from before the first start until after the last join.
        complaints: one line per file that could not be read and per worker that was lost.
        lost: paths of files whose words are not in `counts` though they could be read.
    """

    counts: Counter[str]
    seconds: float
    complaints: list[str]
    lost: list[str]


class Progress:
    """A progress bar on a terminal; silent on anything else.

    Args:
        total: number of bytes that will be counted.
        label: what is running, shown before the bar.
        stream: where to draw; nothing is drawn if it is no terminal.
    """

    REDRAW = 0.1  # seconds

    def __init__(self, total: int, label: str, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._total = max(total, 1)
        self._label = label
        self._done = 0
        self._began = time.monotonic()
        self._drawn = 0.0

    def add(self, size: int) -> None:
        """Note that `size` more bytes are counted; draw at most ten times a second."""
        self._done += size
        now = time.monotonic()
        if self._shown and now - self._drawn >= self.REDRAW:
            self._drawn = now
            self._stream.write("\r" + self._line(now))
            self._stream.flush()

    def clear(self) -> None:
        """Take the bar off the terminal, so that what is printed next begins on a clean line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, now: float) -> str:
        share = min(self._done / self._total, 1.0)
        elapsed = now - self._began
        rate = self._done / elapsed / 1e6 if elapsed > 0 else 0.0
        done, total = self._done / 1e6, self._total / 1e6
        numbers = f" {share:4.0%}  {done:.1f} of {total:.1f} MB  {rate:.1f} MB/s "
        columns = shutil.get_terminal_size().columns - 1
        room = columns - len(self._label) - len(numbers) - 3
        if room < 8:
            return numbers[:columns]
        full = round(share * room)
        return f"{self._label} [{'#' * full}{'.' * (room - full)}]{numbers}"


def words_of(path: str) -> Counter[str]:
    """Count the words of one file.

    A word is a run of letters, digits and underscores, case ignored.  Bytes that are not UTF-8
    end a word.

    Args:
        path: the file to read.

    Returns:
        How often each word occurs in it.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        text = file.read().decode("utf-8", errors="replace")
    return Counter(WORD.findall(text.casefold()))


def find_corpus(named: Sequence[str]) -> Corpus:
    """Find the files to count.

    Args:
        named: files and folders; of a folder, everything below it that ends in .py, .txt or .rst.
            Empty: the running interpreter's own library without what was installed into it.

    Returns:
        The files found, and a complaint for each name that leads nowhere.
    """
    found: dict[str, int] = {}
    complaints: list[str] = []
    for name in named or [sysconfig.get_path("stdlib")]:
        for path in _files_below(name, complaints):
            try:
                state = os.stat(path)
            except OSError as error:
                complaints.append(f"cannot read {_shown(path)}: {error.strerror}")
                continue
            if stat.S_ISREG(state.st_mode):
                found[path] = state.st_size
            else:  # reading a pipe or a device might never end
                complaints.append(f"cannot read {_shown(path)}: not a regular file")
    order = sorted(found, key=lambda path: (-found[path], path))
    return Corpus(order, [found[path] for path in order], complaints)


def _files_below(name: str, complaints: list[str]) -> Iterator[str]:
    if not os.path.isdir(name):
        yield name
        return

    def complain(error: OSError) -> None:
        complaints.append(f"cannot read {_shown(str(error.filename))}: {error.strerror}")

    for folder, folders, files in os.walk(name, onerror=complain):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        yield from (os.path.join(folder, file) for file in files if file.endswith(SUFFIXES))


def count_here(corpus: Corpus, progress: Progress) -> Outcome:
    """Count in this process alone: what the others are compared with.

    Args:
        corpus: the files.
        progress: told about each file.
    """
    began = time.perf_counter()
    counts: Counter[str] = Counter()
    complaints: list[str] = []
    for path, size in zip(corpus.paths, corpus.sizes):
        try:
            counts.update(words_of(path))
        except OSError as error:
            complaints.append(f"cannot read {_shown(path)}: {error.strerror}")
        progress.add(size)
    return Outcome(counts, time.perf_counter() - began, complaints, [])


def count_with(job: Job, corpus: Corpus, progress: Progress) -> Outcome:
    """Count with processes and queues of the library that `job` names.

    Returns also when workers are killed: what they were counting is then listed as lost.

    Args:
        job: library, start method, number of workers.
        corpus: the files.
        progress: told about each file.

    Raises:
        ImportError: the library is not there.
        ValueError: the library does not know the start method.
    """
    library: ModuleType = importlib.import_module(job.library)
    context: Any = library.get_context(job.start_method)
    began = time.perf_counter()
    tasks, results = context.Queue(), context.Queue()
    workers = [
        context.Process(
            target=_work,
            args=(number, tasks, results, job.whole_files),
            name=f"counter-{number}",
            daemon=True,
        )
        for number in range(job.workers)
    ]
    collector = _Collector(corpus, progress)
    started = []
    try:
        # Held back while they start, Ctrl-C cannot meet a worker that does not ignore it yet.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for worker in workers:
                worker.start()
                started.append(worker)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for task in enumerate(corpus.paths):
            tasks.put(task)
        for _ in workers:
            tasks.put(None)
        if collector.collect(results, workers):
            for worker in workers:
                worker.join()
    finally:
        _end(started)  # after an ordinary end nobody is left; after Ctrl-C or a stall, whoever is
        for channel in (tasks, results):
            channel.close()
            channel.cancel_join_thread()  # nobody is left to read what is still in it
    return collector.outcome(time.perf_counter() - began)


def _end(workers: Sequence[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    for worker in workers:
        worker.join(timeout=2)
        if worker.is_alive():  # stopped, perhaps: then only this reaches it
            worker.kill()
            worker.join()


def _work(number: int, tasks: Any, results: Any, whole_files: bool) -> None:
    """What a worker does: count file after file until it is told that there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C; it ends the workers
    put = results.put
    for index, path in iter(tasks.get, None):
        put((number, BEGINS, index))
        try:
            counts = words_of(path)
        except OSError as error:
            put((number, UNREADABLE, error.errno or errno.EIO))
            continue
        if whole_files:
            put((number, dict(counts), index))
        else:
            for word, count in counts.items():
                put((number, word, count))
        put((number, COMPLETE, len(counts)))
    put((number, LEAVES, 0))


class _Collector:
    """Adds up what the workers send, file by file, and knows at any moment which file is whose."""

    def __init__(self, corpus: Corpus, progress: Progress) -> None:
        self._corpus = corpus
        self._progress = progress
        self._counts: Counter[str] = Counter()
        self._complaints: list[str] = []
        self._settled = [False] * len(corpus.paths)
        self._file: dict[int, int] = {}  # worker -> the file that it is counting
        self._part: dict[int, dict[str, int]] = {}  # worker -> what has arrived of it
        self._left: set[int] = set()  # workers that said good-bye

    def collect(self, results: Any, workers: Sequence[Any]) -> bool:
        """Take messages until every worker has left or is dead and nothing is under way.

        Returns:
            False if workers were given up that are still alive.
        """
        get, part, left = results.get, self._part, self._left
        nobody_is_left, gave_up, quiet = False, False, 0.0
        while len(left) < len(workers):
            try:
                worker, word, number = get(timeout=LOOK_AT_WORKERS)
            except queue.Empty:
                # Whoever was dead before this get() had put all that it ever would.
                if nobody_is_left:
                    break
                nobody_is_left = not any(worker.is_alive() for worker in workers)
                quiet += LOOK_AT_WORKERS
                if quiet > GIVE_UP and self._deaths(workers):
                    self._complaints.append(f"nothing came for {GIVE_UP:.0f} s after that: gave up")
                    gave_up = True
                    break
                continue
            quiet = 0.0
            if word.__class__ is str and word[0] != "<":  # nearly every message is one of these
                part[worker][word] = number
            else:
                self._note(worker, word, number)
        self._complaints[:0] = self._deaths(workers)
        return not gave_up

    def outcome(self, seconds: float) -> Outcome:
        """What was counted, and what was not."""
        lost = [path for path, settled in zip(self._corpus.paths, self._settled) if not settled]
        return Outcome(self._counts, seconds, self._complaints, lost)

    def _note(self, worker: int, word: str | dict[str, int], number: int) -> None:
        if isinstance(word, dict):
            self._part[worker] = word
        elif word == BEGINS:
            self._file[worker] = number
            self._part[worker] = {}
        elif word == COMPLETE:
            self._complete(worker, number)
        elif word == UNREADABLE:
            path = self._corpus.paths[self._settle(worker)]
            self._complaints.append(f"cannot read {_shown(path)}: {os.strerror(number)}")
        elif word == LEAVES:
            self._left.add(worker)

    def _complete(self, worker: int, number: int) -> None:
        part = self._part[worker]
        if len(part) != number:
            path = self._corpus.paths[self._file[worker]]
            raise RuntimeError(f"{path}: {number} different words were sent, {len(part)} arrived")
        self._counts.update(part)
        self._settle(worker)

    def _settle(self, worker: int) -> int:
        index = self._file.pop(worker)
        del self._part[worker]
        self._settled[index] = True
        self._progress.add(self._corpus.sizes[index])
        return index

    def _deaths(self, workers: Sequence[Any]) -> list[str]:
        """A line for every worker that ended without saying good-bye."""
        lines = []
        for number, worker in enumerate(workers):
            if number in self._left or worker.exitcode is None:
                continue
            index = self._file.get(number)
            if index is None:
                what = "between two files"
            else:
                what = f"while counting {_shown(self._corpus.paths[index])}"
            how = _ending(worker.exitcode)
            lines.append(f"worker {worker.name} (pid {worker.pid}) was lost, {how}, {what}")
        return lines


def _ending(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exitcode}"


def _shown(path: str) -> str:
    """A path as it can be printed on any terminal, whatever bytes it is made of."""
    return path.encode("utf-8", "backslashreplace").decode()


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="wordcount.py", description="Count the words of a corpus with processes and queues."
    )
    parser.add_argument(
        "paths", nargs="*", help="files and folders (default: this interpreter's own library)"
    )
    parser.add_argument(
        "--workers", type=_positive, default=_usable_cpus(), metavar="N",
        help="number of processes (default: usable CPUs, here %(default)s)",
    )
    parser.add_argument(
        "--start-method", choices=("fork", "spawn", "forkserver"), default="fork",
        help="how processes are started (default: %(default)s)",
    )
    parser.add_argument(
        "--top", type=_positive, default=20, metavar="N",
        help="how many words to print (default: %(default)s)",
    )
    parser.add_argument(
        "--send", choices=("words", "files"), default="words",
        help="what one message carries: one word's count, or a file's (default: %(default)s)",
    )
    parser.add_argument(
        "--library", default="cmultiprocessing", metavar="NAME",
        help="module that supplies Process and Queue (default: %(default)s)",
    )
    parser.add_argument(
        "--compare", action="store_true",
        help="also with the standard library and in one process; check that all agree",
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _run(job: Job | None, corpus: Corpus) -> Outcome:
    progress = Progress(sum(corpus.sizes), job.library if job else "one process")
    try:
        return count_with(job, corpus, progress) if job else count_here(corpus, progress)
    finally:
        progress.clear()


def _print_top(counts: Counter[str], top: int) -> None:
    # Equal counts in alphabetical order: the same corpus prints the same list on every run.
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    width = max((len(f"{count:,}") for _, count in best), default=1)
    for place, (word, count) in enumerate(best, 1):
        print(f"{place:>4}  {count:>{width},}  {word}")


def _print_summary(corpus: Corpus, outcome: Outcome, how: str) -> None:
    words = f"{outcome.counts.total():,} words, {len(outcome.counts):,} different"
    files = f"{len(corpus.paths):,} files ({sum(corpus.sizes) / 1e6:.1f} MB)"
    print(f"\n{words}, in {files}: {outcome.seconds:.2f} s with {how}")


def _print_comparison(corpus: Corpus, outcomes: dict[str, Outcome]) -> None:
    width = max(map(len, outcomes))
    megabytes = sum(corpus.sizes) / 1e6
    slowest = outcomes["one process"].seconds
    print(f"\n{'':{width}}  {'seconds':>8}  {'MB/s':>7}  {'against one process':>20}")
    for how, outcome in outcomes.items():
        print(
            f"{how:{width}}  {outcome.seconds:8.2f}  {megabytes / outcome.seconds:7.1f}"
            f"  {slowest / outcome.seconds:19.2f}x"
        )


def _differences(outcomes: dict[str, Outcome]) -> list[str]:
    """A line for each run whose counts are not those of the one process."""
    expected = outcomes["one process"].counts
    lines = []
    for how, outcome in outcomes.items():
        counts = outcome.counts
        wrong = {word for word in expected | counts if expected[word] != counts[word]}
        if wrong:
            word = min(wrong)
            lines.append(
                f"{how} differs in {len(wrong):,} words, for instance {word!r}: "
                f"{counts[word]:,} instead of {expected[word]:,}"
            )
    return lines


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"wordcount: {line}", file=sys.stderr)


def _losses(outcome: Outcome, shown: int = 5) -> list[str]:
    lines = [f"not counted: {_shown(path)}" for path in outcome.lost[:shown]]
    if len(outcome.lost) > shown:
        lines.append(f"not counted: {len(outcome.lost) - shown:,} more")
    return lines


def _count(options: argparse.Namespace) -> int:
    corpus = find_corpus(options.paths)
    _complain(corpus.complaints)
    if not corpus.paths:
        _complain(["no text found"])
        return 1
    job = Job(options.library, options.start_method, options.workers, options.send == "files")
    plural = "worker" if job.workers == 1 else "workers"
    jobs: dict[str, Job | None] = {f"{job.library}, {job.workers} {plural}": job}
    if options.compare:
        jobs[f"multiprocessing, {job.workers} {plural}"] = job._replace(library="multiprocessing")
        jobs["one process"] = None
    if len(jobs) > 1:
        _run(None, corpus)  # the first to read the files would pay for the others
    outcomes = {how: _run(each, corpus) for how, each in jobs.items()}

    how, outcome = next(iter(outcomes.items()))
    _print_top(outcome.counts, options.top)
    _print_summary(corpus, outcome, how)
    problems = _losses(outcome)
    _complain(outcome.complaints)
    if options.compare:
        _print_comparison(corpus, outcomes)
        for other, its_outcome in list(outcomes.items())[1:]:
            problems += [f"{other}: {line}" for line in _losses(its_outcome)]
        differences = _differences(outcomes)
        if not differences:
            print(f"\nAll agree on every one of {len(outcome.counts):,} words.")
        problems += differences
    sys.stdout.flush()
    _complain(problems)
    return 1 if problems or outcome.complaints or corpus.complaints else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: command line without the program's name; default: ``sys.argv[1:]``.

    Returns:
        0; 1 if something could not be read or was lost, or if counts differ; 2 for a wrong command
        line; 130 after Ctrl-C.
    """
    options = _parse(arguments)
    try:
        importlib.import_module(options.library)
    except ImportError as error:
        _complain([f"{error}; run `pip install .` in the project's folder first"])
        return 2
    try:
        return _count(options)
    except KeyboardInterrupt:
        _complain(["interrupted"])
        return 130
    except BrokenPipeError:  # `wordcount.py | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
