"""Extraction and scoring on a Ray cluster. Ray is imported when an engine is entered, not before.

Every machine must see the data, the store and diffident itself under the same paths. Workers write shards where they
are made; through the network go shard numbers, statistics, Gaussians, labels and scores, never features.
"""

import pickle
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffident.data.dataset import Dataset
from diffident.encoders.protocol import Encoder
from diffident.encoding import Job
from diffident.engines.cluster_rmd import ClusterRmd
from diffident.engines.connection import connection, errors_on_one_line
from diffident.engines.workers import Order, ShardWorker, forget_attempts
from diffident.errors import DiffidentError, InputError
from diffident.storage.features import FeatureSource
from diffident.storage.shard_records import ShardRecord

# Beyond so many shards several are handed out at once; each is kept by itself as soon as it is made.
_BLOCKS = 1_000


class RayEngine:
    """Makes shards and scores on a Ray cluster; a context manager that connects and, if it started Ray, stops it.

    Args:
        address: Of a running cluster, or `auto` for the one on this machine. Default: Ray if it is initialised in this
            process, else the environment's RAY_ADDRESS, else a cluster of this machine's own for the time.
        concurrency: Encoders at once (default: one a GPU, without GPUs one a machine).
        gpus: GPUs of each encoder (default: 1 if the cluster has any).
        open_dataset: Opens the data set where it is used (default: it is sent there, with all that it holds in memory).
        open_encoder: Opens the encoder where it is used (default: it is sent there).

    Raises:
        MissingDependencyError: Ray is not installed; InputError: no cluster at the address.

    Example:
        >>> with RayEngine() as engine:
        ...     extract("photos/", "timm:resnet18", out="features/", engine=engine)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        concurrency: int | None = None,
        gpus: float | int | None = None,
        open_dataset: Callable[[], Dataset] | None = None,
        open_encoder: Callable[[], Encoder] | None = None,
    ):
        if concurrency is not None and concurrency < 1:
            raise InputError(f"`concurrency` must be at least 1; got {concurrency}. Leave it out for the default.")
        self._address, self._concurrency, self._gpus = address, concurrency, gpus
        self._open_dataset, self._open_encoder = open_dataset, open_encoder
        self._stack = ExitStack()
        self._ray: Any = None

    def __enter__(self) -> "RayEngine":
        self._ray = self._stack.enter_context(connection(self._address))
        return self

    def __exit__(self, *error: object) -> None:
        self._ray = None
        self._stack.close()

    def make_shards(
        self, job: Job, folder: Path, numbers: range, report: Callable[[int, int], None]
    ) -> Generator[ShardRecord]:
        """The shards of these numbers as they are finished, each with its record beside it."""
        if not numbers:
            return
        data: Any = self._ray.data
        share = self._share()
        forget_attempts(folder)
        order = Order(
            folder=folder.resolve(),
            working_folder=Path.cwd(),
            settings=job.settings,
            cores=share.cores,
            dataset=self._open_dataset or self._ray.put(job.dataset),
            encoder=self._open_encoder or self._ray.put(job.encoder),
            fingerprints={"dataset": job.dataset.fingerprint, "encoder": job.encoder.fingerprint},
        )
        rows = [{"number": number} for number in numbers]
        blocks = min(len(rows), max(_BLOCKS, 8 * share.concurrency))
        results = data.from_items(rows, override_num_blocks=blocks).map(
            ShardWorker,
            fn_constructor_args=(order,),
            compute=data.ActorPoolStrategy(size=share.concurrency),
            num_cpus=share.cores,
            num_gpus=share.gpus,
        )
        try:
            yield from self._records(results, job, numbers, report)
        finally:
            forget_attempts(folder)

    def rmd(self, source: FeatureSource) -> "ClusterRmd":
        """The verbs of `rmd` for a feature store, done on the cluster.

        Raises:
            InputError: features that are not in shards.
        """
        if not source.shards:
            raise InputError(
                f"`FEATURES` must be a folder of shards for the engine ray; got {source.path}. Use the local engine."
            )
        return ClusterRmd(self._ray, source)

    def _records(
        self, results: Any, job: Job, numbers: range, report: Callable[[int, int], None]
    ) -> Generator[ShardRecord]:
        done = len(job.dataset) - sum(len(job.span(number)) for number in numbers)
        with errors_on_one_line(self._ray), closing(iter(results.iter_rows())) as rows:
            for row in rows:
                result = pickle.loads(row["result"])
                if isinstance(result, DiffidentError):
                    raise result
                done += len(job.span(result.number))
                report(done, len(job.dataset))
                yield result

    def _share(self) -> "_Share":
        """What each encoder gets of the cluster."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        each = (1.0 if gpus else 0.0) if self._gpus is None else self._gpus
        able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= each]
        if not able:
            raise InputError(
                f"`gpus` must be what a machine of the cluster has beside a core; got {each:g}. Choose another device."
            )
        per_node = [max(1, int(node.get("GPU", 0) // each)) if each else 1 for node in able]
        most = sum(min(int(node["CPU"]), int(node["GPU"] // each) if each else int(node["CPU"])) for node in able)
        concurrency = min(self._concurrency or sum(per_node), most)
        # As many encoders a machine as the cluster's cores and GPUs allow, each with a like part of the cores.
        crowd = max(-(-concurrency // len(able)), max(per_node) if each else 1)
        return _Share(concurrency, max(1, int(min(node["CPU"] for node in able) // crowd)), each)


@dataclass(frozen=True)
class _Share:
    concurrency: int
    cores: int
    gpus: float
