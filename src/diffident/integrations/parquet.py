"""Features as one Parquet file, for tools that read tables rather than safetensors."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffident.storage.atomic import atomic_path
from diffident.storage.features import FeatureSource


def to_parquet(source: FeatureSource, path: str | Path) -> Path:
    """Write `id`, `label` and other label columns where there are some, and `features`, a float32 list of width d.

    A shard is a row group, and no more than that is in memory: pandas, polars, DuckDB and Hugging Face `datasets` read
    the file, the last three without loading it whole.

    Example:
        >>> to_parquet(open_features("features/"), "features.parquet")
        PosixPath('features.parquet')
    """
    path = Path(path)
    columns = {"id": pa.array([str(sample) for sample in source.ids], pa.string())}
    if source.labels is not None:
        columns["label"] = pa.array(source.labels, pa.int64())
    columns |= {name: pa.array(column, pa.int64()) for name, column in source.columns.items() if name not in columns}
    keys = pa.table(columns)
    kind = pa.list_(pa.float32(), source.num_features)
    schema = keys.schema.append(pa.field("features", kind))
    row = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for block in source.blocks():
            numbers = pa.array(block.float().numpy().reshape(-1))
            values = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
            writer.write_table(keys.slice(row, len(block)).append_column("features", values).cast(schema))
            row += len(block)
    return path
