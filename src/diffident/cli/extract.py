"""`diffident extract`: a data set's features into a folder."""

import argparse

from diffident.cli.common import add_data_options, data_options, log, print_json, progress_bar

EXAMPLE = "diffident extract photos/ --encoder timm:vit_small_patch16_224 --out features/"


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
    parser.add_argument("--shard-size", type=int, default=4096, metavar="N", help="samples of a file (default: 4096)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N samples, evenly spaced over the data")
    add_data_options(parser)


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Options of reading samples and running an encoder."""
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="resize images to N x N (default: the encoder's own)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="samples at once (default: 64)")
    parser.add_argument("--on-error", choices=["fail", "skip"], default="fail", help="what an unreadable sample does")


def run(arguments: argparse.Namespace) -> None:
    """Extract and say where the features are."""
    from diffident.data import open_dataset
    from diffident.encoders import open_encoder
    from diffident.extraction import extract
    from diffident.storage.features import open_features

    dataset = open_dataset(arguments.data, limit=arguments.limit, **data_options(arguments))
    encoder = open_encoder(arguments.encoder, device=arguments.device, image_size=arguments.image_size)
    with progress_bar("extract") as progress:
        extract(
            dataset,
            encoder,
            out=arguments.out,
            batch_size=arguments.batch_size,
            shard_size=arguments.shard_size,
            on_error=arguments.on_error,
            progress=progress,
        )
    features = open_features(arguments.out)
    skipped = len(dataset) - len(features)
    result = {
        "features": arguments.out,
        "num_samples": len(features),
        "num_features": features.num_features,
        "num_skipped": skipped,
        "encoder": features.encoder,
    }
    if arguments.json:
        print_json(result)
        return
    log(f"{len(features):,} samples with {features.num_features} features each are in {arguments.out}.")
    if skipped:
        log(f"{skipped} unreadable samples were skipped; {arguments.out}/manifest.json names them.")
    log(f"Next: diffident score {arguments.out} --out difficulty.parquet")
