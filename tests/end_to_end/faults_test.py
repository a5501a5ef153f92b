#!/usr/bin/env python3
"""Ranks that stop answering: the others end the run in time, and say who it was."""
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import MPIRUN, Case, checkpoints, status  # noqa: E402

RANKS = 4
FAULTY = 2
DEADLINE_S = 10
MARGIN_S = 5  # behind the deadline, until every other rank has said what it knows
RUN = {"train__num_steps": 100000, "run__deadline_seconds": DEADLINE_S}
FOUR_PROCESSES = (MPIRUN, str(RANKS), "moebius")
SKIPPING = os.path.abspath("tests/end_to_end/skipping_rank")


def processes(run):
    """The processes that work on a run: by rank, or "mpirun" and the like."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if str(run).encode() not in (entry / "cmdline").read_bytes():
                continue
            variables = (entry / "environ").read_bytes().split(b"\0")
            rank = [v.split(b"=")[1] for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            name = int(rank[0]) if rank else (entry / "comm").read_text().strip()
            found[name] = int(entry.name)
        except OSError:
            pass  # it has just ended
    return found


def log(run, rank):
    return run / "log" / f"rank-{rank:03d}.txt"


class Faults(Case):
    def start_ranks(self, name):
        """Four processes in their third step."""
        run = self.folder / name
        process = self.start(run, launch=FOUR_PROCESSES, **RUN)
        self.wait_for(process, "step 3/")
        return run, process

    def strike(self, run, number):
        """Sends the signal to the faulty rank, and says when."""
        ranks = processes(run)
        self.assertTrue(set(range(RANKS)) <= set(ranks), ranks)
        os.kill(ranks[FAULTY], number)
        return time.time()

    def sentence_of(self, run, rank):
        """What a rank's log says of its end. Its last operations stand behind it."""
        lines = log(run, rank).read_text().splitlines()
        at = [i for i, line in enumerate(lines) if " failed: " in line]
        self.assertEqual(len(at), 1, lines)
        self.assertRegex(lines[at[0] + 1], rf"the last \d+ operations of rank {rank}, oldest first")
        self.assertGreater(len(lines), at[0] + 2)
        return lines[at[0]].split(" failed: ")[1]

    def assert_failed(self, run, process, pattern):
        """The job ends by itself; every other rank has said the same as status.json."""
        output = process.communicate(timeout=100)[0]
        self.assertNotEqual(process.returncode, 0, output)
        self.assertEqual(processes(run), {}, output)
        self.assertEqual(status(run)["state"], "failed", output)
        self.assertEqual(status(run)["exit_code"], 1)
        self.assertRegex(status(run)["exit_reason"], pattern)
        self.assertRegex(output, "moebius: " + pattern)
        for rank in range(RANKS):
            if rank != FAULTY:
                self.assertRegex(self.sentence_of(run, rank), pattern)

    def test_a_stopped_rank_is_named_within_the_deadline(self):
        run, process = self.start_ranks("stopped")
        struck = self.strike(run, signal.SIGSTOP)
        self.assert_failed(run, process, rf"group .+, .+ \d+ .*rank \d waits .*for rank {FAULTY}\b")
        self.assertIn(f"rank {FAULTY}, whose process is stopped", status(run)["exit_reason"])
        self.assertIn(f"the deadline is {DEADLINE_S:.1f} s", status(run)["exit_reason"])
        for rank in range(RANKS):
            if rank != FAULTY:
                self.assertLess(log(run, rank).stat().st_mtime, struck + DEADLINE_S + MARGIN_S)

    def test_a_killed_rank_is_named_by_the_others(self):
        run, process = self.start_ranks("killed")
        self.strike(run, signal.SIGKILL)
        self.assert_failed(run, process, rf"group .+, .+ \d+ .*rank \d waits .*for rank {FAULTY}\b")
        self.assertIn(f"rank {FAULTY}, whose process has ended", status(run)["exit_reason"])

    def test_a_skipped_operation_is_named(self):
        sentence = (r"group data: rank \d calls all-gather 10 \(1 F32\) where rank 2 calls "
                    r"all-reduce 10 \(100 F32\)")
        for name, launch in {"processes": (MPIRUN, str(RANKS), "tests/end_to_end/skipping_rank"),
                             "threads": (SKIPPING,)}.items():
            with self.subTest(name):
                run = self.folder / name
                run.mkdir()
                done = subprocess.run([*launch, str(run)], capture_output=True, text=True,
                                      timeout=100, check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertEqual(status(run)["state"], "failed", done.stderr)
                either = sentence + "|" + (r"group data: rank 2 calls all-reduce 10 \(100 F32\) "
                                           r"where rank 0 calls all-gather 10 \(1 F32\)")
                self.assertRegex(status(run)["exit_reason"], either)
                # Threads end together, with the sentence of the first; processes have their own.
                expected = sentence if name == "processes" else either
                for rank in range(RANKS):
                    if rank != FAULTY:
                        self.assertRegex(self.sentence_of(run, rank), expected)

    def test_memory_that_does_not_suffice_leaves_the_history_of_each_rank(self):
        run = self.folder / "overflow"
        self.train(run, "--ranks", 2, expect=1, run__device_memory_bytes=2_000_000, **RUN)
        self.assertRegex(status(run)["exit_reason"], "device memory: .* budget of 2000000")
        for rank in range(2):
            self.assertEqual(self.sentence_of(run, rank), status(run)["exit_reason"])

    def test_a_request_to_stop_still_stops(self):
        """mpirun passes SIGUSR1 on to every rank."""
        run, process = self.start_ranks("asked")
        os.kill(processes(run)["mpirun"], signal.SIGUSR1)
        output = process.communicate(timeout=100)[0]
        self.assertEqual(process.returncode, 75, output)
        self.assertEqual(status(run)["state"], "stopped", output)
        self.assertEqual([path.name for path in checkpoints(run)],
                         [f"step-{status(run)['step']:08d}"])


if __name__ == "__main__":
    unittest.main()
