"""robustdml data: where a data set is, and how to get it."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from robustdml.cli import failures, show, terminal
from robustdml.cli.options import Common, File, read

EXAMPLES = (
    "fashion",
    "fashion --download",
    "mnist --from mnist.zip --data-root /data",
    "cub --from CUB_200_2011.tgz",
    "sop --decode",
    "folder:photos",
    "digits --json",
)


@dataclass(kw_only=True)
class Options(Common):
    """Where a data set is looked for, what is there, and how to get what is missing. Exit 4 unless it is complete."""

    name: Positional[str]
    """name of a data set (robustdml list datasets) or folder:PATH"""
    download: bool = False
    """fetch what is missing or damaged; a download that was stopped goes on"""
    archive: Annotated[File, tyro.conf.arg(name="from")] = None
    """unpack a zip or tar archive instead; only files of the data set are taken out of it"""
    decode: bool = False
    """decode every image, and name those that are damaged"""
    cache: bool = False
    """decode every image once and keep them on disk, for train --cache"""
    data_root: File = None
    """folder that is looked at first, and that downloads go to"""


def main(argv: list[str]) -> int:
    """Parse, fetch if asked, describe."""
    options, _ = read(Options, argv, "data", EXAMPLES)
    if options.download and options.archive:
        raise failures.UsageError("--download and --from exclude each other.")
    from robustdml.data import dataset, describe, download, unpack
    from robustdml.data.cache import cached

    with terminal.Progress(options.quiet) as progress:
        if options.archive:
            unpack(options.name, options.archive, options.data_root)
        elif options.download:
            download(options.name, options.data_root, lambda file, done, total: progress(done, total or done, file))
        found = describe(
            options.name,
            options.data_root,
            decode=options.decode,
            progress=lambda done, total: progress(done, total, "decoding"),
        )
        if options.cache and found["complete"]:
            cached(dataset(options.name).load(options.data_root), options.data_root, progress.note)
    terminal.document(found) if options.json else terminal.lines(show.data(found))
    return 0 if found["complete"] else failures.BAD_DATA
