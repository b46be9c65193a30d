"""The engine on real Ray: one machine, and three on one. Starting Ray takes seconds, hence `slow`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.extracting import contents, encode_as, halves, unreadable

import diffident
from diffident.cli import main
from diffident.data import open_dataset
from diffident.engines.ray import RayEngine
from diffident.errors import InputError, UnreadableSampleError, WorkerError
from diffident.extraction import extract
from diffident.storage.difficulty_table import read_difficulty_table

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPTIONS = {"batch_size": 8, "shard_size": 16}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of one machine, to which tests may add others."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def one(cluster):
    with RayEngine(cluster.address) as engine:
        yield engine


@pytest.fixture
def others(cluster):
    """Two machines more."""
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    yield nodes
    for node in nodes:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


@pytest.fixture
def dataset():
    return open_dataset("digits", limit=150)


@pytest.fixture
def local(dataset, tmp_path):
    """What the local engine writes."""
    extract(dataset, encode_as(halves), out=tmp_path / "local", **OPTIONS)
    return contents(tmp_path / "local")


def killing(marker):
    """Halves, but the worker that comes first to the sixth batch is killed."""

    def encode(batch):
        if len(list(marker.parent.glob("seen-*"))) == 5 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (marker.parent / f"seen-{time.time_ns()}").touch()
        return halves(batch)

    return encode_as(encode)


def naming_nodes(folder):
    """Halves, and a file for each node that encodes."""

    def encode(batch):
        import ray

        (folder / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(0.2)
        return halves(batch)

    return encode_as(encode)


def test_a_killed_worker_changes_nothing(one, dataset, local, tmp_path):
    (tmp_path / "marks").mkdir()
    marker = tmp_path / "marks" / "killed"
    extract(dataset, killing(marker), out=tmp_path / "f", engine=one, **OPTIONS)
    assert marker.exists()
    assert contents(tmp_path / "f") == local


def test_three_machines_write_what_one_does(others, one, dataset, local, tmp_path):
    (tmp_path / "nodes").mkdir()
    done = []
    given = {"engine": one, "progress": lambda *numbers: done.append(numbers), **OPTIONS}
    extract(dataset, naming_nodes(tmp_path / "nodes"), out=tmp_path / "f", **given)
    assert len(list((tmp_path / "nodes").iterdir())) == 3
    assert contents(tmp_path / "f") == local
    assert done[-1] == (150, 150)
    assert len(done) == 10


def test_a_machine_that_is_lost_changes_nothing(cluster, others, one, dataset, local, tmp_path):
    (tmp_path / "nodes").mkdir()
    lost = []

    def lose(done, total):
        if not lost:
            lost.append(cluster.remove_node(others[1], allow_graceful=False))

    extract(dataset, naming_nodes(tmp_path / "nodes"), out=tmp_path / "f", engine=one, progress=lose, **OPTIONS)
    assert lost
    assert contents(tmp_path / "f") == local


def test_errors_keep_their_type(one, dataset, tmp_path):
    torn = unreadable(dataset, {20})
    with pytest.raises(UnreadableSampleError, match=r"`.+` .* it is torn\. Or leave such samples out with --on-error"):
        extract(torn, halves, out=tmp_path / "f", engine=one, **OPTIONS)
    store = extract(torn, halves, out=tmp_path / "f", engine=one, on_error="skip", **OPTIONS)
    assert len(store) == 149
    with pytest.raises(WorkerError, match=r"a worker failed: ZeroDivisionError: division by zero"):
        extract(dataset, encode_as(lambda batch: 1 / 0), out=tmp_path / "g", engine=one, **OPTIONS)


def test_a_wrong_feature_is_named_by_its_row(one, dataset, tmp_path):
    store = extract(dataset, halves, out=tmp_path / "f", **OPTIONS)
    from diffident.difficulties import score_features
    from diffident.storage.feature_shards import write_shard
    from diffident.storage.features import open_features

    values = store.load().values[16:32].clone()
    values[3, 5] = float("nan")
    write_shard(tmp_path / "f", 1, values)
    source = open_features(tmp_path / "f")
    with pytest.raises(InputError, match="must be finite; got NaN or infinity at row 19"):
        score_features(source.blocks, source.ids, source.labels, verbs=one.rmd(source))


COMMAND = ["extract", "digits", "--batch-size", "64", "--shard-size", "64", "--encoder", "python:slow:encode", "--out"]


def test_a_killed_driver_goes_on(cluster, slow_encoder):
    killed = subprocess.Popen(
        [sys.executable, "-m", "diffident", *COMMAND, "parts", "--engine", "ray", "--ray-address", cluster.address],
        env=os.environ | {"PYTHONPATH": str(Path(diffident.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not any(Path("parts").glob("shard-*.json")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not json.loads(Path("parts/manifest.json").read_text())["complete"]
    # Shards may be finished in any order.
    shards = [record.with_suffix(".safetensors") for record in Path("parts").glob("shard-*.json")]
    before = [shard.stat().st_mtime_ns for shard in shards]
    assert main([*COMMAND, "parts", "--engine", "ray", "--ray-address", cluster.address]) == 0
    assert [shard.stat().st_mtime_ns for shard in shards] == before
    assert main([*COMMAND, "whole"]) == 0
    assert contents(Path("parts")) == contents(Path("whole"))


def same_scores(first, second):
    first, second = read_difficulty_table(first), read_difficulty_table(second)
    assert first.ids.tolist() == second.ids.tolist()
    assert first.nearest_labels.tolist() == second.nearest_labels.tolist()
    for name in ("difficulty", "margin"):
        ours, theirs = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * first.difficulty.std())


def test_three_machines_score_as_one_process_does(others, cluster, slow_encoder):
    assert main([*COMMAND, "features"]) == 0
    for name, options in (("local", []), ("ray", ["--engine", "ray", "--ray-address", cluster.address])):
        assert main(["score", "features", "--out", f"{name}.parquet", *options]) == 0
    same_scores("local.parquet", "ray.parquet")


def test_the_commands_start_ray_themselves(slow_encoder):
    def run(*arguments):
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": str(Path(diffident.__file__).parents[1])}
        command = [sys.executable, "-m", "diffident", *arguments]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    options = ["--engine", "ray", "--json"]
    assert run(*COMMAND, "features", "--limit", "600", "--concurrency", "2", *options)["num_samples"] == 600
    assert run("score", "features", "--out", "ray.parquet", *options)["num_samples"] == 600
    assert main(["score", "features", "--out", "local.parquet"]) == 0
    same_scores("local.parquet", "ray.parquet")


def test_no_cluster_at_the_address_is_one_line():
    with (
        pytest.raises(InputError, match=r"`--ray-address` must be that of a running cluster; got 127\.0\.0\.1:1: "),
        RayEngine("127.0.0.1:1"),
    ):
        pass
