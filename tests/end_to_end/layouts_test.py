#!/usr/bin/env python3
"""One run on one rank, on ranks as threads and on ranks as processes: the same numbers."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import MPIRUN, RECIPE, Case, checkpoints, evaluations, results, settings, steps  # noqa: E402

FP64 = {"precision__compute": "FP64", "train__num_steps": 8, "train__eval_interval_steps": 4}
TWO_PROCESSES = (MPIRUN, "2", "moebius")
TOLERANCE = 1e-10

# Of the recipe's two layers and two key/value heads.
EVERY_AXIS = {
    "1f1b": {"parallel__tensor_size": 2, "parallel__context_size": 2, "parallel__pipeline_size": 2,
             "parallel__expert_size": 4, "parallel__zero_stage": 1},
    "zb_h1": {"parallel__tensor_size": 2, "parallel__pipeline_size": 2,
              "parallel__expert_size": 2, "parallel__expert_tensor_size": 2,
              "parallel__pipeline_schedule": "ZB_H1", "parallel__recompute": "FULL",
              "parallel__dispatcher": "ALL_GATHER",
              "train__micro_batch_size": 2, "parallel__zero_stage": 3},
}


def remove(checkpoint):
    for path in checkpoint.iterdir():
        path.unlink()
    checkpoint.rmdir()


class Layouts(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.one = cls.folder / "one"
        cls().train(cls.one, **FP64)

    def assert_close(self, a, b):
        self.assertEqual(len(a), len(b))
        for x, y in zip(a, b):
            self.assertLessEqual(abs(x - y), TOLERANCE * max(1, abs(x)), (a, b))

    def assert_same_numbers(self, run):
        """As the run on one rank."""
        self.assertEqual(len(results(self.one)), 8)
        for one, other in zip(results(self.one), results(run), strict=True):
            self.assert_close(one, other)
        self.assertEqual([row["expert_load"] for row in steps(self.one)],
                         [row["expert_load"] for row in steps(run)])
        for step in (4, 8):
            one, other = evaluations(self.one, step), evaluations(run, step)
            self.assertEqual(sorted(one), ["code", "fables", "notes"])
            self.assertEqual(sorted(other), sorted(one))
            for domain, numbers in one.items():
                self.assert_close([numbers["loss"], numbers["bits_per_byte"]],
                                  [other[domain]["loss"], other[domain]["bits_per_byte"]])

    def test_data_parallel_threads_and_processes(self):
        threads, processes = self.folder / "threads", self.folder / "processes"
        self.train(threads, "--ranks", 2, **FP64)
        self.assert_same_numbers(threads)
        self.train(processes, launch=TWO_PROCESSES, **FP64)
        # How ranks talk is not even layout: the same bits.
        self.assertEqual(results(processes), results(threads))
        self.assertEqual(self.checksums(processes), self.checksums(threads))

    def test_expert_parallel(self):
        run = self.folder / "experts"
        self.train(run, "--ranks", 2, parallel__expert_size=2, **FP64)
        self.assert_same_numbers(run)

    def test_every_axis(self):
        """Eight ranks: tensor, context, pipeline and experts cut at once, evaluations included."""
        for name, layout in EVERY_AXIS.items():
            with self.subTest(name):
                run = self.folder / name
                self.train(run, "--ranks", 8, **layout, **FP64)
                self.assert_same_numbers(run)

    def test_a_pipeline_of_processes_goes_on_alone(self):
        run = self.folder / "pipeline"
        first = {**FP64, "checkpoint__interval_steps": 3}
        self.train(run, launch=TWO_PROCESSES, parallel__pipeline_size=2, parallel__zero_stage=1,
                   **first)
        self.assert_same_numbers(run)
        remove(checkpoints(run)[0])  # back to step 6
        done = self.train(run, **first)
        self.assertIn("resumed from", done.stdout + done.stderr)
        self.assert_same_numbers(run)

    def test_a_run_goes_on_in_another_layout(self):
        run = self.folder / "moved"
        first = {**FP64, "checkpoint__interval_steps": 3}
        self.train(run, **first)
        remove(checkpoints(run)[0])  # back to step 6
        done = self.train(run, "--ranks", 2, parallel__expert_size=2, **first)
        self.assertIn("resumed from", done.stdout + done.stderr)
        self.assert_same_numbers(run)

    def test_preparing_again_changes_nothing(self):
        def state():
            return {path.name: (path.stat().st_mtime_ns, path.read_bytes())
                    for path in self.data.iterdir()}

        before = state()
        done = self.moebius("prepare", "--config", RECIPE, *settings(
            {"run.dir": self.folder / "again", "data.dir": self.data}))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(state(), before)

    def test_another_folder_gets_the_same_bytes(self):
        done = self.moebius("prepare", "--config", RECIPE, *settings(
            {"run.dir": self.folder / "other", "data.dir": self.folder / "other_data"}))
        self.assertEqual(done.returncode, 0, done.stderr)
        for path in self.data.iterdir():
            self.assertEqual(path.read_bytes(),
                             (self.folder / "other_data" / path.name).read_bytes(), path.name)


if __name__ == "__main__":
    unittest.main()
