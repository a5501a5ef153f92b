#!/usr/bin/env python3
"""Training goes on when a checkpoint cannot be written, and says so."""
import pathlib
import resource
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, checkpoints, results, status  # noqa: E402

NUM_STEPS = 150
RUN = {"train__num_steps": NUM_STEPS, "checkpoint__interval_steps": 3}
SMALLEST_SHARD = 100_000  # bytes; a limit on file sizes that lets all other files pass


def limit():
    """As `ulimit -S -f`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_SHARD, resource.RLIM_INFINITY))


class FullDisk(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alone = cls.folder / "alone"
        cls().train(cls.alone, **RUN)

    def test_no_room_for_a_while(self):
        run = self.folder / "a_while"
        process = self.start(run, **RUN)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE,
                         (SMALLEST_SHARD, resource.RLIM_INFINITY))
        self.wait_for(process, "was not saved")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output = process.communicate(timeout=40)[0]
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(results(run), results(self.alone))
        self.assertEqual(self.checksums(run), self.checksums(self.alone))

    def test_no_room_at_the_end(self):
        run = self.folder / "the_end"
        done = self.train(run, expect=1, options={"preexec_fn": limit}, **RUN)
        self.assertIn("was not saved", done.stdout)
        self.assertEqual(results(run), results(self.alone))
        self.assertEqual(status(run)["state"], "failed")
        self.assertEqual(status(run)["exit_code"], 1)
        self.assertIn("File too large", status(run)["exit_reason"])
        self.assertEqual(checkpoints(run), [])
        self.assertEqual(list((run / "checkpoints").glob("*")), [], "half a checkpoint stays")


if __name__ == "__main__":
    unittest.main()
