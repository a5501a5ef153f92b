#!/usr/bin/env python3
"""What a signal asks of a run."""
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, checkpoints, results, status  # noqa: E402

STOPPED = 75
NUM_STEPS = 150
RUN = {"train__num_steps": NUM_STEPS}


class Signals(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alone = cls.folder / "alone"
        cls().train(cls.alone, **RUN)

    def signalled(self, run, number, *arguments):
        """The run after the signal has come in its third step; its exit code and its output."""
        process = self.start(run, *arguments, **RUN)
        self.wait_for(process, "step 3/")
        process.send_signal(number)
        output = process.communicate(timeout=40)[0]
        return process.returncode, output

    def assert_stops_and_goes_on(self, number, *arguments):
        run = self.folder / f"{number.name}{len(arguments)}"
        code, output = self.signalled(run, number, *arguments)
        self.assertEqual(code, STOPPED, output)
        saved = checkpoints(run)
        stopped_at = status(run)["step"]
        self.assertLess(stopped_at, NUM_STEPS)
        self.assertEqual([path.name for path in saved], [f"step-{stopped_at:08d}"])
        self.assertEqual(status(run)["state"], "stopped")
        self.assertEqual(status(run)["exit_code"], STOPPED)
        self.assertEqual(status(run)["last_checkpoint"], saved[0].name)

        self.train(run, *arguments, **RUN)
        self.assert_complete(run, NUM_STEPS)
        self.assertEqual(status(run)["state"], "done")
        self.assertEqual(status(run)["attempt"], 2)
        if not arguments:
            self.assertEqual(results(run), results(self.alone))

    def test_sigterm_stops(self):
        self.assert_stops_and_goes_on(signal.SIGTERM)

    def test_sigusr1_stops(self):
        self.assert_stops_and_goes_on(signal.SIGUSR1)

    def test_sigterm_stops_ranks_as_threads(self):
        self.assert_stops_and_goes_on(signal.SIGTERM, "--ranks", 2)

    def test_sigusr2_saves_and_goes_on(self):
        run = self.folder / "saves"
        code, output = self.signalled(run, signal.SIGUSR2)
        self.assertEqual(code, 0, output)
        names = [path.name for path in checkpoints(run)]
        self.assertEqual(len(names), 2, names)
        self.assertEqual(names[0], f"step-{NUM_STEPS:08d}")
        self.assertEqual(results(run), results(self.alone))


if __name__ == "__main__":
    unittest.main()
