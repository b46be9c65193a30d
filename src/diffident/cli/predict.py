"""`diffident predict`: a trained classifier's logits."""

import argparse
from dataclasses import replace

from diffident.cli.common import add_data_options, check_out, data_options, log, print_json, progress_bar

EXAMPLE = "diffident predict runs/difficulty-aware-1 new.parquet --out predictions.parquet"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("run_folder", metavar="RUN", help="folder from `diffident train`")
    parser.add_argument("data", metavar="DATA", help="what to predict; labels are optional")
    parser.add_argument("--out", required=True, metavar="FILE", help="the predictions to write (.parquet)")
    parser.add_argument(
        "--corruption", metavar="KIND:SEVERITY", help="corrupt the samples first, for example fog:3 or typos:5"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the corruption (default: 0)")
    parser.add_argument(
        "--no-labels", action="store_true", help="leave DATA's labels out: of data with other classes than the run's"
    )
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or mps (default: the run's)")
    add_data_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Predict and say where the logits are."""
    from diffident.corruptions import corrupted, parse_corruption
    from diffident.data import open_dataset
    from diffident.storage.predictions import write_predictions
    from diffident.storage.runs import open_run

    check_out(arguments.out, arguments.data, suffix=".parquet")
    open_run(arguments.run_folder)  # is there, before anything is read
    dataset = open_dataset(arguments.data, **data_options(arguments))
    if arguments.no_labels:
        dataset = replace(dataset, labels=None, label_names=None)
    if arguments.corruption is not None:
        kind, severity = parse_corruption(arguments.corruption)
        dataset = corrupted(dataset, kind, severity, seed=arguments.seed)

    from diffident.training import predict  # takes seconds: a mistyped name need not wait

    with progress_bar("predict") as progress:
        predictions = predict(arguments.run_folder, dataset, device=arguments.device, progress=progress)
    write_predictions(predictions, arguments.out)
    if arguments.json:
        shape = list(predictions.logits.shape)
        print_json({"predictions": arguments.out, "num_samples": shape[0], "num_classes": shape[1]})
        return
    log(f"The logits of {len(predictions):,} samples are in {arguments.out}.")
