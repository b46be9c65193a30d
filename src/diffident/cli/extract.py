"""`diffident extract`: a data set's features into a folder."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from diffident.cli.common import (
    add_data_options,
    add_engine_options,
    data_options,
    log,
    opened_engine,
    print_json,
    progress_bar,
)
from diffident.errors import InputError

EXAMPLE = "diffident extract photos/ --encoder timm:vit_small_patch16_224 --out features/"
_NAMED = 5


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "data", metavar="DATA", help="folder of class folders, .parquet, .csv, .jsonl, .npz, digits, ..."
    )
    parser.add_argument("--encoder", required=True, metavar="ENC", help="timm:NAME, open_clip:ARCH/TAG, glyphs, ...")
    parser.add_argument(
        "--out", required=True, metavar="FEATURES", help="folder to write; an unfinished one is resumed"
    )
    add_encoder_options(parser)
    parser.add_argument(
        "--dtype", choices=["float32", "float16"], default="float32", help="how features are stored (default: float32)"
    )
    parser.add_argument("--shard-size", type=int, default=4096, metavar="N", help="samples of a file (default: 4096)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N samples, evenly spaced over the data")
    add_data_options(parser)
    add_engine_options(parser)
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="encoders at once with --engine ray (default: one a GPU, without GPUs one a machine)",
    )


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Options of reading samples and running an encoder."""
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="resize images to N x N (default: the encoder's own)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--precision",
        default="auto",
        help="of the model: float32, bfloat16, float16, or auto, which is bfloat16 on CUDA, else float32",
    )
    parser.add_argument(
        "--num-workers", type=int, metavar="N", help="threads that decode (default: the number of cores, at most 8)"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="samples at once (default: 64)")
    parser.add_argument("--on-error", choices=["fail", "skip"], default="fail", help="what an unreadable sample does")


def refuse_encoder_options(arguments: argparse.Namespace) -> None:
    """Refuse what only an encoder needs, beside features that are there already."""
    usual = argparse.ArgumentParser()
    add_encoder_options(usual)
    for name, value in {"encoder": None, **vars(usual.parse_args([]))}.items():
        if getattr(arguments, name) != value:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"`{flag}` must be used with DATA; got the features {arguments.data}. Leave it out.")


def encoder_from(arguments: argparse.Namespace, name: str):
    """The named encoder with the options of `add_encoder_options`."""
    from diffident.encoders import open_encoder

    return open_encoder(name, device=arguments.device, image_size=arguments.image_size, precision=arguments.precision)


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_encoder_options` that `extract` takes."""
    return {name: getattr(arguments, name) for name in ("batch_size", "num_workers", "on_error")}


def run(arguments: argparse.Namespace) -> None:
    """Extract and say where the features are."""
    from diffident.data import open_dataset
    from diffident.extraction import extract
    from diffident.storage.feature_shards import read_manifest
    from diffident.storage.features import open_features

    open_data = partial(open_dataset, arguments.data, limit=arguments.limit, **data_options(arguments))
    open_model = partial(encoder_from, arguments, arguments.encoder)
    engine_options = {
        "concurrency": arguments.concurrency,
        "gpus": 0.0 if arguments.device == "cpu" else None,
        "open_dataset": open_data,
        "open_encoder": open_model,
    }
    with opened_engine(arguments, **engine_options) as engine, progress_bar("extract") as progress:
        extract(
            open_data(),
            open_model(),
            engine=engine,
            out=arguments.out,
            shard_size=arguments.shard_size,
            dtype=arguments.dtype,
            progress=progress,
            **reading_options(arguments),
        )
    features = open_features(arguments.out)
    skipped = read_manifest(Path(arguments.out))["skipped"]
    result = {
        "features": arguments.out,
        "num_samples": len(features),
        "num_features": features.num_features,
        "num_skipped": len(skipped),
        "skipped": skipped,
        "encoder": features.encoder,
    }
    if arguments.json:
        print_json(result)
        return
    log(f"{len(features):,} samples with {features.num_features} features each are in {arguments.out}.")
    if skipped:
        named = ", ".join(skipped[:_NAMED]) + (", ..." if len(skipped) > _NAMED else "")
        log(f"{len(skipped):,} unreadable samples were skipped: {named}. {arguments.out}/manifest.json names them all.")
    if features.labels is not None:
        log(f"Next: diffident score {arguments.out} --method posterior --out difficulty.parquet")
