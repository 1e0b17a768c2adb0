"""The trade-off of the report as two SVG files that stand alone, the name of each run beside its point.

python benchmarks/tradeoff_figure.py docs/results/*fashion* --profile rob28 --out docs/figures/fashion
"""

import argparse
from dataclasses import replace
from pathlib import Path

from robustdml.files import write_text
from robustdml.report.published import canonical, published
from robustdml.report.results import read_all
from robustdml.report.run import ResultError
from robustdml.report.tradeoff import tradeoff_plots

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" style="background: white" '


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders or result files")
    parser.add_argument("--profile", default="rob28", help="whose results are shown")
    parser.add_argument("--cut", default="", help="names of runs are shown up to this word, such as fashion")
    parser.add_argument("--no-published", action="store_true", help="leave out the published rows")
    parser.add_argument("--out", type=Path, required=True, help="OUT-ers.svg and OUT-worst.svg are written")
    options = parser.parse_args()
    try:
        runs = [run for run in read_all(options.runs) if run.profile == options.profile]
    except ResultError as error:
        parser.error(str(error))
    if options.cut:
        runs = [replace(run, name=run.name.split(f"-{options.cut}")[0]) for run in runs]
    known = sorted({name for run in runs if (name := canonical(run.dataset))})
    rows = [] if options.no_published or not known else published(*known)
    named = list({row.defense: row for row in reversed(rows) if row.loss.startswith("Triplet")}.values())
    plots = tradeoff_plots(runs, named, named_runs=True)
    if not plots:
        parser.error(f"no two points: {len(runs)} results of {options.profile} with recall@1 are not enough.")
    for plot in plots:
        path = options.out.with_name(f"{options.out.name}-{'worst' if 'worst' in plot.title else 'ers'}.svg")
        write_text(path, plot.svg.replace("<svg ", HEAD, 1))
        print(f"{path}: {plot.caption}")


if __name__ == "__main__":
    main()
