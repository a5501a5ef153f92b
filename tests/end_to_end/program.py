"""The program as its users run it: commands, run folders, and what a run leaves behind."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

PROGRAM = os.path.abspath("moebius")
RECIPE = "configs/recipes/tiny.textproto"
MPIRUN = os.path.abspath("bazel/mpirun.sh")

# What a step computes, as opposed to what it cost.
RESULTS = ("loss", "balance_loss", "z_loss", "grad_norm", "lr", "tokens")

# One thread a rank: the order of sums depends on the number of threads.
SMALL = {"run.threads_per_rank": 1, "train.sequence_length": 16, "train.global_batch_size": 8,
         "train.micro_batch_size": 2, "train.eval_max_tokens_per_domain": 256}


def settings(values):
    """--set arguments for {path: value}; a str is a string or an enum value."""
    return [word for path, value in values.items() for word in ("--set", f"{path}={value}")]


class Case(unittest.TestCase):
    """Tests that have a folder of their own, and the prepared data of the recipe."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR")))
        cls.data = cls.folder / "data"
        done = cls.moebius("prepare", "--config", RECIPE, *settings(
            {"run.dir": cls.folder / "prepare", "data.dir": cls.data}))
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @staticmethod
    def moebius(*arguments, launch=(), timeout=50, **options):
        """Runs the program to its end."""
        return subprocess.run([*launch, *([] if launch else [PROGRAM]), *map(str, arguments)],
                              capture_output=True, text=True, timeout=timeout, check=False,
                              **options)

    def train_arguments(self, run, *arguments, **values):
        """The command line of a small run in the folder `run`; values: path with __ for dots."""
        fields = {**SMALL, "run.dir": run, "data.dir": self.data,
                  **{path.replace("__", "."): value for path, value in values.items()}}
        return ["train", "--config", RECIPE, *settings(fields), *map(str, arguments)]

    def train(self, run, *arguments, expect=0, launch=(), options=None, **values):
        done = self.moebius(*self.train_arguments(run, *arguments, **values), launch=launch,
                            **(options or {}))
        self.assertEqual(done.returncode, expect, done.stderr + done.stdout)
        return done

    def start(self, run, *arguments, launch=(), **values):
        """The same in the background, its output in a pipe."""
        command = [*(launch or [PROGRAM]), *self.train_arguments(run, *arguments, **values)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    def wait_for(self, process, text):
        """Reads its output up to a line with `text`."""
        seen = []
        for line in process.stdout:
            seen.append(line)
            if text in line:
                return
        self.fail(f"no line with {text!r} in:\n{''.join(seen)}")

    def checksums(self, checkpoint):
        done = self.moebius("inspect", checkpoint, "--checksum")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def assert_complete(self, run, num_steps):
        """Every step is on record exactly once, in order."""
        self.assertEqual([row["step"] for row in steps(run)], list(range(1, num_steps + 1)))


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps(run):
    return [record for record in records(run) if "eval" not in record]


def results(run):
    return [[row["step"], *(row[key] for key in RESULTS)] for row in steps(run)]


def evaluations(run, step):
    return {record["eval"]["domain"]: record["eval"] for record in records(run)
            if "eval" in record and record["step"] == step}


def status(run):
    return json.loads((run / "status.json").read_text())


def checkpoints(run):
    """Newest first."""
    return sorted((run / "checkpoints").glob("step-????????"), reverse=True)


def flip_bit(path, at=0.5):
    """Flips one bit of a file, `at` of its length in."""
    content = bytearray(path.read_bytes())
    content[min(int(len(content) * at), len(content) - 1)] ^= 1
    path.write_bytes(content)


def truncate(path, by=1):
    os.truncate(path, path.stat().st_size - by)
