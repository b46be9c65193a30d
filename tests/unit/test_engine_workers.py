"""What the workers of an engine do, without Ray: they run in this process, one after the other."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.cli.test_cli import fail
from tests.extracting import contents, halves, unreadable, widening

from diffident.cli import main
from diffident.data import open_dataset
from diffident.difficulties import rmd
from diffident.encoders.callables import CallableEncoder
from diffident.engines.cluster_rmd import ClusterRmd
from diffident.engines.ray import RayEngine
from diffident.engines.workers import Order, ShardWorker, forget_attempts
from diffident.errors import InputError, MissingDependencyError, ResumeError, UnreadableSampleError, WorkerError
from diffident.extraction import extract
from diffident.gaussian import solve_gaussians
from diffident.storage.features import open_features
from diffident.storage.shard_records import read_record


class Direct:
    """An engine whose one worker is in this process and takes the last shard first."""

    def __init__(self, **changes):
        self.changes, self.made = changes, []

    def make_shards(self, job, folder, numbers, report):
        forget_attempts(folder)
        fingerprints = {"dataset": job.dataset.fingerprint, "encoder": job.encoder.fingerprint}
        opened = {"dataset": lambda: job.dataset, "encoder": lambda: job.encoder} | self.changes
        worker = ShardWorker(Order(folder, Path.cwd(), job.settings, 1, **opened, fingerprints=fingerprints))
        for number in reversed(numbers):
            result = pickle.loads(worker({"number": number})["result"])
            if isinstance(result, Exception):
                raise result
            self.made.append(number)
            yield result


OPTIONS = {"batch_size": 8, "shard_size": 16}


@pytest.fixture
def dataset():
    return open_dataset("digits", limit=50)


def counted(function=halves):
    """An encoder that counts its samples; the count is no part of its fingerprint."""
    seen = []
    encoder = CallableEncoder(lambda batch: seen.extend(batch) or function(batch), name="test", fingerprint="test")
    return encoder, seen


def test_out_of_order_the_files_are_those_of_the_local_engine(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "local", **OPTIONS)
    store = extract(dataset, halves, out=tmp_path / "engine", engine=Direct(), **OPTIONS)
    assert store.ids.tolist() == dataset.ids.tolist()
    assert contents(tmp_path / "engine") == contents(tmp_path / "local")


@pytest.mark.parametrize("then", [None, Direct()])
def test_an_interrupted_driver_repeats_no_whole_shard(then, dataset, tmp_path):
    extract(dataset, counted()[0], out=tmp_path / "local", **OPTIONS)
    folder = tmp_path / "engine"

    def torn(batch):
        if any(sample is first for sample in batch):
            raise KeyboardInterrupt
        return halves(batch)

    samples = [dataset[row] for row in range(50)]
    first, kept = samples[0], replace(dataset, read=lambda position: samples[position])
    with pytest.raises(KeyboardInterrupt):
        extract(kept, counted(torn)[0], out=folder, engine=Direct(), **OPTIONS)
    assert json.loads((folder / "manifest.json").read_text())["shards"] == []
    (folder / "shard-00002.safetensors").write_bytes(b"torn")  # its record no longer fits
    encoder, seen = counted()
    extract(dataset, encoder, out=folder, engine=then, **OPTIONS)
    assert len(seen) == 16 + 16  # the first and the torn one
    assert contents(folder) == contents(tmp_path / "local")


def test_skipped_samples_are_those_of_the_local_engine(dataset, tmp_path):
    torn = unreadable(dataset, {0, 17, *range(32, 48)})
    for name, engine in (("local", None), ("engine", Direct())):
        extract(torn, halves, out=tmp_path / name, engine=engine, on_error="skip", **OPTIONS)
    assert contents(tmp_path / "engine") == contents(tmp_path / "local")


def test_a_record_with_skipped_samples_is_not_taken_where_they_fail(dataset, tmp_path):
    torn = unreadable(dataset, {49})
    encoder = counted(lambda batch: halves(batch) if len(batch) < 8 else 1 / 0)[0]
    with pytest.raises(
        WorkerError, match=r"a worker failed: ZeroDivisionError: division by zero \(line \d+ of "
    ) as error:
        extract(torn, encoder, out=tmp_path / "f", engine=Direct(), on_error="skip", **OPTIONS)
    assert "halves(batch) if len(batch)" in error.value.__notes__[0]
    assert read_record(tmp_path / "f", 3).skipped == ["digits:1761"]
    with pytest.raises(UnreadableSampleError, match=r"`digits:1761` .* it is torn\. Or leave such samples out"):
        extract(torn, encoder, out=tmp_path / "f", engine=Direct(), **OPTIONS)


def test_a_width_that_changes_between_shards_is_named(dataset, tmp_path):
    with pytest.raises(InputError, match=r"must give \[n, 2\] throughout; got \[2, 3\] in shard-00003\.safetensors"):
        extract(dataset, widening, out=tmp_path / "f", engine=Direct(), **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": lambda: open_dataset("digits:test")},
            "`dataset` must be the same on every machine; digits:test is",
        ),
        ({"encoder": lambda: CallableEncoder(widening)}, "`encoder` must be the same on every machine; python:"),
    ],
)
def test_another_data_set_or_encoder_on_a_worker_is_named(changes, message, dataset, tmp_path):
    with pytest.raises(ResumeError, match=message):
        extract(dataset, halves, out=tmp_path / "f", engine=Direct(**changes), **OPTIONS)


def test_a_sample_that_kills_every_worker_is_named(dataset, tmp_path):
    marks = tmp_path / "f" / ".shard-00001.attempts"

    class Deadly(Direct):
        def make_shards(self, *arguments):
            records = super().make_shards(*arguments)
            yield next(records)
            marks.write_bytes(b"....")  # four died here
            yield from records

    with pytest.raises(WorkerError, match=r"4 died of samples `digits:0575` to `digits:1114`\. Lower --batch-size"):
        extract(dataset, halves, out=tmp_path / "f", engine=Deadly(), **OPTIONS)
    extract(dataset, halves, out=tmp_path / "f", engine=Direct(), **OPTIONS)
    assert not marks.exists()


def test_an_engine_needs_a_folder(dataset):
    with pytest.raises(InputError, match="`out` must be given with an engine"):
        extract(dataset, halves, engine=Direct())


class Inline:
    """The part of Ray's interface that scoring uses, done at once."""

    exceptions = type("exceptions", (), {"RayError": LookupError})

    def __init__(self):
        self.tasks = []

    def remote(self, **options):
        def wrap(function):
            def remote(*arguments):
                self.tasks.append(function.__name__)
                return function(*arguments)

            return type("Task", (), {"remote": staticmethod(remote)})

        return wrap

    def get(self, value):
        return value

    put = get

    def cluster_resources(self):
        return {"CPU": 5.0}


def test_merged_statistics_and_joined_scores_are_those_of_one_pass(tmp_path):
    dataset = open_dataset("digits", limit=300)
    torn = unreadable(dataset, range(20, 30))
    store = extract(torn, "identity", out=tmp_path / "f", batch_size=10, shard_size=10, on_error="skip")
    ray = Inline()
    cluster = ClusterRmd(ray, store)
    state = cluster.fit(store.blocks, store.labels, 10, shrinkage=0.2)
    expected = rmd.fit(store.blocks, store.labels, 10, shrinkage=0.2)
    # 29 shards with rows and room for 20 parts; 20 statistics become 3, then 1.
    assert ray.tasks == ["part_statistics"] * 20 + ["merge_statistics"] * 4
    assert state.counts.tolist() == expected.counts.tolist()
    np.testing.assert_allclose(state.within, expected.within, rtol=0, atol=1e-7)
    ours, theirs = (verbs.score(state, store.blocks, store.labels) for verbs in (cluster, rmd))
    for name in ("difficulty", "nearest", "margin"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_cluster_chooses_the_shrinkage_that_one_machine_does(tmp_path):
    store = extract(open_dataset("digits", limit=100), "identity", out=tmp_path / "f", shard_size=10)
    found, expected = (verbs.fit(store.blocks, store.labels, 10) for verbs in (ClusterRmd(Inline(), store), rmd))
    assert found.shrinkage == pytest.approx(expected.shrinkage)
    assert found.shrinkage > 1.5 * solve_gaussians(rmd.statistics_of(store.blocks, store.labels, 10)).shrinkage


def test_without_ray_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = "`--engine ray` must have the library Ray. Install it: pip install 'diffident[ray]'."
    with pytest.raises(MissingDependencyError) as error:
        RayEngine().__enter__()
    assert str(error.value) == message
    given = ["extract", "digits", "--encoder", "glyphs", "--out", str(tmp_path / "f"), "--engine", "ray"]
    assert main(given) == 2
    assert capsys.readouterr().err == f"diffident: error: {message}\n"
    assert not (tmp_path / "f").exists()


def test_ray_is_not_imported_before_it_is_used():
    code = (
        "import sys, diffident.engines.ray, diffident.cli.extract, diffident.cli.score; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--ray-address", "auto"],
            "`--ray-address` must be used with --engine ray; got --engine local. Leave it out.",
        ),
        (["--engine", "ray", "--method", "knn"], "`--engine ray` must score one FEATURES by rmd; got --method knn."),
        (["{f}", "--engine", "ray"], "`--engine ray` must score one FEATURES by rmd; got 2 FEATURES. Leave it out."),
    ],
)
def test_wrong_calls_of_score_are_one_line(arguments, message, dataset, tmp_path, capsys):
    extract(dataset, "identity", out=tmp_path / "f")
    given = [argument.format(f=tmp_path / "f") for argument in ("{f}", *arguments)]
    assert message in fail(capsys, "score", *given, "--out", str(tmp_path / "d.parquet"))


def test_features_without_shards_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(4, dtype=np.float32), labels=[0, 1, 0, 1])
    with pytest.raises(InputError, match=r"must be a folder of shards for the engine ray; got .*a\.npz"):
        RayEngine().rmd(open_features(tmp_path / "a.npz"))


def test_wrong_concurrency_is_named():
    with pytest.raises(InputError, match="`concurrency` must be at least 1; got 0"):
        RayEngine(concurrency=0)


NODE = {"Alive": True, "Resources": {"CPU": 8.0}}


@pytest.mark.parametrize(
    ("nodes", "options", "share"),
    [
        ([NODE], {}, (1, 8, 0)),
        ([NODE, NODE, NODE | {"Alive": False}], {}, (2, 8, 0)),
        ([NODE, NODE], {"concurrency": 6}, (6, 2, 0)),
        ([NODE], {"concurrency": 100}, (8, 1, 0)),
        ([NODE, {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}], {}, (4, 4, 1)),
        ([{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}], {"gpus": 0.0}, (1, 16, 0)),
    ],
)
def test_share_of_each_encoder(nodes, options, share):
    engine = RayEngine(**options)
    engine._ray = type("Ray", (), {"nodes": staticmethod(lambda: nodes)})
    found = engine._share()
    assert (found.concurrency, found.cores, found.gpus) == share


def test_no_machine_with_a_gpu_is_named():
    engine = RayEngine(gpus=1)
    engine._ray = type("Ray", (), {"nodes": staticmethod(lambda: [NODE])})
    with pytest.raises(InputError, match="`gpus` must be what a machine of the cluster has beside a core; got 1"):
        engine._share()
