#!/usr/bin/env python3
"""moebius plan: this machine, described ones, the search, and what it refuses."""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import RECIPE, Case  # noqa: E402

BAD_INPUT = 2
QWEN = "configs/recipes/qwen3_30b_a3b.textproto"
H100 = "configs/clusters/h100.textproto"

# (what replaces what in the cluster file, what is said)
BROKEN_CLUSTERS = [
    ("ranks: 8", "rank: 8", ":1:1: rank: no such field, did you mean \"ranks\"?"),
    ("ranks: 8", "ranks: none", ":1:1: ranks: found none, must be an integer"),
    ("memory_bandwidth: 1000000000", "memory_bandwidth: 0",
     ":2:33: device.memory_bandwidth: 0 is out of range, must be at least 1"),
    ("within_node { bandwidth: 1000000000 }", "", "within_node.bandwidth: is required"),
]
CLUSTER = """ranks: 8
device { fp32_flops: 1000000000 memory_bandwidth: 1000000000 }
within_node { bandwidth: 1000000000 }
between_nodes { bandwidth: 1000000000 }
"""


class Plan(Case):
    def plan(self, *arguments, recipe=RECIPE):
        done = self.moebius("plan", "--config", recipe, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refuse(self, *arguments, recipe=RECIPE):
        done = self.moebius("plan", "--config", recipe, *arguments)
        self.assertEqual(done.returncode, BAD_INPUT, done.stderr + done.stdout)
        return done.stderr

    def test_this_machine_is_measured_and_can_be_kept(self):
        saved = self.folder / "this_machine.textproto"
        fresh = json.loads(self.plan("--ranks", 2, "--set", "parallel.expert_size=2",
                                     "--save_cluster", saved, "-o", "json"))
        again = json.loads(self.plan("--cluster", saved, "--set", "parallel.expert_size=2",
                                     "-o", "json"))
        self.assertEqual(fresh["ranks"], 2)
        self.assertEqual(fresh["device"]["name"], "this machine")
        self.assertAlmostEqual(fresh["step"]["seconds"] / again["step"]["seconds"], 1, places=3)
        self.assertGreater(fresh["stages"][0]["micro_batches"]["exchange_seconds"], 0)

    def test_a_cluster_that_nobody_here_has(self):
        plan = json.loads(self.plan("--cluster", H100, "-o", "json", recipe=QWEN))
        self.assertEqual(plan["parameters"], {"total": 30532122624, "active": 3353032704})
        step = plan["step"]
        self.assertAlmostEqual(step["tokens_per_second"] * step["seconds"], 512 * 4096, delta=1)
        self.assertLess(step["mfu"], 0.79)
        self.assertEqual(plan["peak_bytes"], plan["stages"][0]["bytes"]["peak"])

    def test_stages_have_a_timeline(self):
        pipeline = ["--set", "parallel.pipeline_size=2", "--cluster", H100, "--ranks", 2]
        text = self.plan(*pipeline)
        self.assertRegex(text, r"(?m)^stage 1   \|[FB.]+\|$")
        self.assertRegex(text, r"(?m)^rank 1 .*[0-9]$")
        plan = json.loads(self.plan(*pipeline, "-o", "json"))
        for stage in plan["stages"]:
            self.assertEqual(len(stage["timeline"]), 8)  # forward and backward of 4 micro-batches
            busy = sum(sum(stage[part].values()) for part in ("micro_batches", "rest"))
            self.assertAlmostEqual(busy + stage["bubble_seconds"], plan["step"]["seconds"])
            self.assertAlmostEqual(sum(op["seconds"] for op in stage["ops"]), busy)

    def test_search_names_a_layout_that_can_be_planned(self):
        result = json.loads(self.plan("--cluster", H100, "--ranks", 4, "--search", "-o", "json"))
        best = result["layouts"][0]
        seconds = [layout["seconds"] for layout in result["layouts"]]
        self.assertEqual(seconds, sorted(seconds))
        plan = json.loads(self.plan("--cluster", H100, "--ranks", 4, "-o", "json",
                                    *best["overrides"].split()))
        self.assertAlmostEqual(plan["step"]["seconds"] / best["seconds"], 1, places=2)
        self.assertIn("the first one: --set", self.plan("--cluster", H100, "--ranks", 4,
                                                        "--search"))

    def test_search_keeps_what_results_depend_on(self):
        micro_batch = ["--cluster", H100, "--ranks", 2, "--search", "--set",
                       "model.moe.balance.loss[0].scope=MICRO_BATCH"]
        self.assertIn("kept               train.micro_batch_size 4, ", self.plan(*micro_batch))
        for layout in json.loads(self.plan(*micro_batch, "-o", "json"))["layouts"]:
            self.assertTrue(layout["overrides"].endswith("train.micro_batch_size=4"))
        running = ["--set", "model.moe.balance.global_counts=RUNNING"]
        self.assertIn("kept               2 micro-batches a rank, ",
                      self.plan("--cluster", H100, "--ranks", 2, "--search", *running))
        self.assertIn("RUNNING", self.refuse("--cluster", H100, "--ranks", 3, "--search", *running))

    def test_broken_clusters(self):
        cluster = self.folder / "broken.textproto"
        for old, new, words in BROKEN_CLUSTERS:
            with self.subTest(new):
                broken = CLUSTER.replace(old, new)
                self.assertNotEqual(broken, CLUSTER)
                cluster.write_text(broken)
                error = self.refuse("--cluster", cluster)
                self.assertIn(f"{cluster}:", error)
                self.assertIn(words, error)

    def test_what_cannot_be_planned(self):
        self.assertIn("nowhere", self.refuse("--cluster", "nowhere"))
        self.assertIn("--ranks", self.refuse("--ranks", 0))
        self.assertIn("global_batch_size", self.refuse("--cluster", H100, "--ranks", 3))
        self.assertIn("share a core", self.refuse("--ranks", 100000))
        self.assertIn("pipeline_layers", self.refuse("--cluster", H100, "--search", "--set",
                                                     "parallel.pipeline_layers=[2]"))
        cluster = self.folder / "fp32.textproto"
        cluster.write_text(CLUSTER)
        self.assertIn("BF16 has no peak", self.refuse("--cluster", cluster, recipe=QWEN))
        cluster.write_text(CLUSTER.replace("device {", "device { memory_bytes: 1000"))
        self.assertIn("fits the 1000 bytes", self.refuse("--cluster", cluster, "--search"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
