# SPDX-License-Identifier: PSF-2.0
"""examples/wordcount.py on small corpora: what it counts, what it says, and that it ends."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Some tests count in this process; its family memory, made once, stays as long as it does.
pytestmark = pytest.mark.usefixtures("ours")
ROOT = Path(__file__).resolve().parent.parent
WORDCOUNT = ROOT / "examples" / "wordcount.py"
LIMIT = 60  # seconds; a run takes about half a second


def wordcount(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORDCOUNT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty files: `the` 60 times, `Cat` 30 times in two spellings, and a word of its own in each."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(30):
        cat = "cat" if number % 2 else "CAT"
        (folder / f"{number}.txt").write_text(f"the {cat}, the own{number}\n")
    (folder / "ignored.bin").write_text("the the the")
    return folder


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("send", ["words", "files"])
def test_counts(corpus: Path, start_method: str, send: str) -> None:
    run = wordcount(
        corpus, "--workers", 2, "--top", 2, "--start-method", start_method, "--send", send
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["1", "60", "the"]
    assert lines[1].split() == ["2", "30", "cat"]
    assert "120 words, 32 different, in 30 files" in run.stdout
    assert run.stderr == "", "nothing is drawn where stderr is no terminal"


def test_compare_agrees_and_prints_the_times(corpus: Path) -> None:
    run = wordcount(corpus, "--compare", "--workers", 3)
    assert run.returncode == 0, run.stderr
    assert "All agree on every one of 32 words." in run.stdout
    for how in ("cmultiprocessing, 3 workers", "multiprocessing, 3 workers", "one process"):
        assert re.search(rf"^{how} +\d+\.\d\d +\d+\.\d +\d+\.\d\dx$", run.stdout, re.M), run.stdout


def test_compare_notices_a_difference(corpus: Path) -> None:
    module = load()
    found = module.find_corpus([str(corpus)])
    right = module.count_here(found, module.Progress(1, ""))
    wrong = right._replace(counts=right.counts + module.Counter(the=1))
    lines = module._differences({"tampered": wrong, "one process": right})
    assert lines == ["tampered differs in 1 words, for instance 'the': 61 instead of 60"]


def test_unreadable_and_odd_files(corpus: Path) -> None:
    (corpus / "bad.txt").write_bytes(b"good\xff\xfe caf\xc3\xa9 the")
    os.symlink("nowhere", corpus / "dangling.txt")
    os.mkfifo(corpus / "pipe.txt")  # reading it would wait for ever
    odd = os.fsencode(corpus) + b"/\xff.txt"  # a name that is not UTF-8
    with open(odd, "w") as file:
        file.write("odd the")
    run = wordcount(corpus, corpus / "missing", "--workers", 2, "--top", 40)
    assert run.returncode == 1
    assert f"cannot read {corpus}/dangling.txt: No such file or directory" in run.stderr
    assert f"cannot read {corpus}/pipe.txt: not a regular file" in run.stderr
    assert f"cannot read {corpus}/missing: No such file or directory" in run.stderr
    assert run.stdout.split()[:3] == ["1", "62", "the"]
    assert {"good", "café", "odd"} <= set(run.stdout.split())


def test_a_file_that_vanishes_is_named(corpus: Path) -> None:
    module = load()
    found = module.find_corpus([str(corpus)])
    (corpus / "7.txt").unlink()
    job = module.Job("cmultiprocessing", "fork", 2, whole_files=False)
    outcome = module.count_with(job, found, module.Progress(1, ""))
    assert outcome.complaints == [f"cannot read {corpus}/7.txt: No such file or directory"]
    assert outcome.lost == []
    assert outcome.counts["the"] == 58


def test_a_killed_worker_costs_its_file(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    found = module.find_corpus([str(corpus)])
    victim = str(corpus / "7.txt")
    count = module.words_of

    def deadly(path: str) -> object:
        if path == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return count(path)

    monkeypatch.setattr(module, "words_of", deadly)
    job = module.Job("cmultiprocessing", "fork", 2, whole_files=False)
    outcome = module.count_with(job, found, module.Progress(1, ""))
    assert outcome.lost == [victim]
    assert outcome.counts["the"] == 58
    (line,) = outcome.complaints
    said = r"worker counter-[01] \(pid \d+\) was lost, killed by SIGKILL, while counting "
    assert re.fullmatch(said + re.escape(victim), line)


def test_all_workers_killed_still_ends(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    found = module.find_corpus([str(corpus)])
    monkeypatch.setattr(module, "words_of", lambda path: os.kill(os.getpid(), signal.SIGKILL))
    job = module.Job("cmultiprocessing", "fork", 2, whole_files=False)
    outcome = module.count_with(job, found, module.Progress(1, ""))
    assert sorted(outcome.lost) == sorted(found.paths)
    assert len(outcome.complaints) == 2
    assert not outcome.counts


def test_ctrl_c_ends_it_and_its_workers(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"some words of file {number} " * 400_000)
    command = [sys.executable, str(WORDCOUNT), str(tmp_path), "--workers", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        wait_for_children(run.pid, 2)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
        output, errors = run.communicate(timeout=LIMIT)
    assert run.returncode == 130
    assert (output, errors) == ("", "wordcount: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)  # nobody is left of the group


def test_progress_bar_on_a_terminal(corpus: Path) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal, open(theirs, "wb", buffering=0) as side:
        command = [sys.executable, str(WORDCOUNT), str(corpus), "--workers", "2"]
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=side, timeout=LIMIT, check=True
        )
        drawn = terminal.read(65536).decode()
    assert "cmultiprocessing [#" in drawn
    assert "MB/s" in drawn
    assert drawn.endswith("\r\x1b[K"), "the bar is taken away again"
    assert b"[#" not in run.stdout


def test_output_cut_off_by_a_reader(corpus: Path) -> None:
    command = f"{sys.executable} {WORDCOUNT} {corpus} --top 40 | head -1"
    run = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert run.stdout.split() == ["1", "60", "the"]
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "must be at least 1, not 0"),
        (["--start-method", "thread"], "invalid choice: 'thread'"),
        (["--library", "no_such_library"], "No module named 'no_such_library'"),
    ],
)
def test_wrong_command_line(corpus: Path, arguments: list[str], message: str) -> None:
    run = wordcount(corpus, *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_nothing_to_count(tmp_path: Path) -> None:
    run = wordcount(tmp_path)
    assert (run.returncode, run.stderr) == (1, "wordcount: no text found\n")


def load():  # type: ignore[no-untyped-def]
    """The example as a module of this process, freshly."""
    spec = importlib.util.spec_from_file_location("wordcount_under_test", WORDCOUNT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for_children(pid: int, number: int) -> None:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + LIMIT
    while len(children.read_text().split()) < number:
        assert time.monotonic() < deadline, "the workers were never started"
        time.sleep(0.01)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_modify(start_method: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "modify.py"), "--start-method", start_method]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "49",
        "0.1111111111111111",
        "HELLO WORLD",
        "[(3.515625, 39.0625), (33.0625, 4.0), (5.640625, 90.25)]",
    ]
