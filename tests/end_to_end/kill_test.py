#!/usr/bin/env python3
"""A run that is killed at random moments ends with the bits of one that was left alone."""
import pathlib
import random
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, results, status  # noqa: E402

NUM_KILLS = 20
NUM_STEPS = 300  # more than all lives together take, also where a step takes a millisecond
RUN = {"train__num_steps": NUM_STEPS, "checkpoint__interval_steps": 3}


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Kill(Case):
    def kill_somewhere(self, run, moments):
        """Lets the run live for a few steps, or for less than its start takes."""
        process = self.start(run, **RUN)
        delay = moments.uniform(0, 0.08)
        if moments.random() < 0.8:
            delay = moments.uniform(0, 0.006)
            wanted = lines_of(run / "metrics.jsonl") + moments.randint(1, 4)
            began = time.monotonic()
            # Resuming cuts lines that no checkpoint covers: wait for new ones, within reason.
            while lines_of(run / "metrics.jsonl") < wanted and process.poll() is None:
                if time.monotonic() - began > 5:
                    break
                time.sleep(0.002)
        time.sleep(delay)
        alive = process.poll() is None
        process.kill()
        output = process.communicate()[0]
        self.assertTrue(alive, f"ended with {process.returncode} before it was killed:\n{output}")

    def test_twenty_kills(self):
        alone, killed = self.folder / "alone", self.folder / "killed"
        self.train(alone, **RUN)
        seed = random.randrange(1 << 32)
        print("moments are drawn with seed", seed)
        moments = random.Random(seed)
        for _ in range(NUM_KILLS):
            self.kill_somewhere(killed, moments)
        self.train(killed, **RUN)

        self.assert_complete(killed, NUM_STEPS)
        self.assertEqual(results(killed), results(alone))
        self.assertEqual(self.checksums(killed), self.checksums(alone))
        self.assertEqual(status(killed)["state"], "done")


if __name__ == "__main__":
    unittest.main()
