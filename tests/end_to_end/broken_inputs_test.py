#!/usr/bin/env python3
"""Inputs that are wrong or damaged: each ends with exit code 2 at once, and names what is wrong."""
import pathlib
import shutil
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import RECIPE, Case, checkpoints, flip_bit, results, truncate  # noqa: E402

BAD_INPUT = 2
PATIENCE_SECONDS = 5  # for a process on a busy machine; alone it takes a fraction of one

# (what replaces what in the recipe, words of the message)
BROKEN_CONFIGS = [
    ("num_steps: 20", "num_step: 20", ["train.num_step", "did you mean \"num_steps\""]),
    ("train {", "trian {", ["trian", "did you mean \"train\""]),
    ("num_steps: 20", "num_steps: twenty", ["train.num_steps"]),
    ("num_steps: 20", "num_steps: 2.5", ["train.num_steps"]),
    ("num_steps: 20", "num_steps: 0", ["train.num_steps"]),
    ("num_steps: 20", "", ["train.num_steps"]),
    ("num_steps: 20", "num_steps: 20 num_steps: 30", ["num_steps"]),
    ("num_steps: 20", "num_steps: 99999999999999999999", ["num_steps"]),
    ("micro_batch_size: 4", "micro_batch_size: 3", ["micro_batch_size", "global_batch_size"]),
    ("  hidden_size: 32", "  hidden_size: -32", ["model.hidden_size"]),
    ("  hidden_size: 32", "  hidden_size: 30", ["model."]),
    ("num_kv_heads: 2", "num_kv_heads: 3", ["num_kv_heads", "num_heads"]),
    ("top_k: 2", "top_k: 9", ["model.moe.top_k"]),
    ("num_experts: 8", "num_experts: -1", ["model.moe.num_experts"]),
    ("scope: GLOBAL_BATCH", "scope: GLOBAL", ["scope"]),
    ("weight: 0.01", "weight: -1", ["balance.loss", "weight"]),
    ("kind: BYTES", "kind: WORDS", ["data.tokenizer.kind"]),
    ("name: \"code\"", "name: \"fables\"", ["data.domains", "fables"]),
    ("name: \"code\"", "name: \"a/b\"", ["data.domains", "name"]),
    ("peak_lr: 0.003", "peak_lr: -1", ["optimizer.peak_lr"]),
    ("peak_lr: 0.003", "peak_lr: nan", ["optimizer.peak_lr"]),
    ("dir: \"runs/tiny\"", "", ["run.dir"]),
    ("warmup_steps: 4\n}", "warmup_steps: 4\n", [":"]),
    ("run {", "run { \x01", [":"]),
]

# Command lines beside a good config.
BROKEN_ARGUMENTS = [
    (["--set", "train.num_stepz=3"], ["train.num_stepz"]),
    (["--set", "train.num_steps"], ["train.num_steps"]),
    (["--set", "model.moe.top_k=true"], ["top_k"]),
    (["--set", "parallel.expert_size=3"], ["parallel.expert_size"]),
    (["--set", "parallel.expert_size=2"], ["expert_size"]),  # on one rank
    (["--ranks", "3"], ["global_batch_size"]),
    (["--ranks", "0"], ["--ranks"]),
    (["--ranks", "two"], ["--ranks"]),
    (["--set", "data.domains[1].files=[\"missing.txt\"]"], ["missing.txt"]),
    (["--set", "data.domains[7].weight=1"], ["data.domains"]),
    (["--set", "model.vocab_size=100"], ["model.vocab_size"]),
    (["--checkpoint", "nowhere"], ["nowhere"]),
    (["--checkpoint", RECIPE], [RECIPE]),
    (["--no_such_flag"], ["--no_such_flag"]),
]


def replace_by_text(path):
    path.write_text("not what it was")


# What happens to which file of the prepared data; the message names the file.
BROKEN_DATA = [
    ("dataset.json", truncate),
    ("dataset.json", flip_bit),
    ("dataset.json", replace_by_text),
    ("dataset.json", lambda path: path.unlink()),
    ("tokenizer.json", flip_bit),
    ("tokenizer.json", truncate),
    ("tokenizer.json", lambda path: path.unlink()),
    ("code.train.bin", flip_bit),
    ("code.train.bin", truncate),
    ("code.train.bin", lambda path: path.unlink()),
    ("notes.heldout.bin", flip_bit),
    ("fables.train.idx", flip_bit),
    ("fables.train.idx", truncate),
    ("fables.heldout.idx", lambda path: path.write_bytes(b"")),
    ("code.heldout.idx", lambda path: flip_bit(path, 0)),
]

# Fields that change what is computed, and another value of each.
RESULT_FIELDS = {
    "run.seed": 2,
    "train.global_batch_size": 16,
    "train.sequence_length": 8,
    "precision.compute": "FP64",
    "model.rope_theta": 5000,
    "model.moe.top_k": 1,
    "model.moe.balance.loss[0].weight": 0.5,
    "optimizer.peak_lr": 0.001,
    "optimizer.warmup_steps": 1,
}


class BrokenInputs(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.recipe = pathlib.Path(RECIPE).read_text()
        cls.trained = cls.folder / "trained"
        cls().train(cls.trained, train__num_steps=6)

    def refuse(self, arguments, words):
        began = time.monotonic()
        done = self.moebius(*arguments)
        self.assertEqual(done.returncode, BAD_INPUT, done.stderr + done.stdout)
        self.assertLess(time.monotonic() - began, PATIENCE_SECONDS)
        for word in words:
            self.assertIn(str(word), done.stderr)

    def test_configs(self):
        for old, new, words in BROKEN_CONFIGS:
            with self.subTest(new):
                self.assertEqual(self.recipe.count(old), 1, "the recipe has changed")
                config = self.folder / "broken.textproto"
                config.write_text(self.recipe.replace(old, new))
                for command in ("train", "prepare"):
                    self.refuse([command, "--config", config], [config, *words])

    def test_config_files(self):
        self.refuse(["train", "--config", "no/such.textproto"], ["no/such.textproto"])
        self.refuse(["train", "--config", self.folder], [self.folder])
        binary = self.folder / "binary"
        binary.write_bytes(bytes(range(256)))
        self.refuse(["train", "--config", binary], [binary])

    def test_arguments(self):
        for arguments, words in BROKEN_ARGUMENTS:
            with self.subTest(arguments):
                self.refuse(self.train_arguments(self.folder / "unused", *arguments), words)

    def test_data(self):
        for number, (name, damage) in enumerate(BROKEN_DATA):
            with self.subTest(f"{number}: {name}"):
                data = self.folder / f"data{number}"
                shutil.copytree(self.data, data)
                damage(data / name)
                self.refuse(self.train_arguments(self.folder / "unused", data__dir=data),
                            [data if name == "dataset.json" else data / name])

    def test_result_fields_stay(self):
        before = results(self.trained)
        for path, value in RESULT_FIELDS.items():
            with self.subTest(path):
                self.refuse(self.train_arguments(self.trained, "--set", f"{path}={value}",
                                                 train__num_steps=7), [path])
        self.assertEqual(results(self.trained), before)

    def test_checkpoint_of_a_run_with_other_results(self):
        checkpoint = checkpoints(self.trained)[0]
        config = checkpoint / "config.textproto"
        other = self.folder / "other"
        for path, value in RESULT_FIELDS.items():
            with self.subTest(path):
                self.refuse(self.train_arguments(other, "--checkpoint", checkpoint, "--set",
                                                 f"{path}={value}", train__num_steps=7),
                            [f"{config}: {path}: "])
        self.assertEqual({path.name for path in other.iterdir()} - {".lock", "log"}, set())

        self.train(other, "--checkpoint", checkpoint, train__num_steps=7,
                   train__micro_batch_size=4)
        self.assertEqual([row[0] for row in results(other)], [7])

    def test_a_run_in_use(self):
        run = self.folder / "in_use"
        process = self.start(run, train__num_steps=100000)
        self.wait_for(process, "step 1/")
        try:
            self.refuse(self.train_arguments(run, train__num_steps=100000), [run, "process"])
        finally:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    unittest.main()
