"""The command `spark-estimate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import Mistake
from sparkhost.tools.estimate.fit import choose, table
from sparkhost.tools.estimate.fit import row as one_row
from sparkhost.tools.estimate.options import PROGRAM, host_of, lacking, parser, run_of
from sparkhost.tools.estimate.report import advice, document, lines
from sparkhost.tools.estimate.shape import of_count, read


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where nothing fits; 2 for a mistake on the command line or in the config.json."""
    options = parser().parse_args(arguments)
    try:
        if (options.config is None) == (options.parameters is None):
            raise Mistake("expected a model's config.json, or --parameters COUNT; see --help")
        shape = read(options.config) if options.config else of_count(options.parameters)
        run, host = run_of(options, shape), host_of(options)
        if options.total_batch and not shape.whole:
            raise Mistake(f"--total-batch: {lacking(shape, 'which batch fits depends')}")
        single = options.batch is not None or not shape.whole
        rows = [one_row(shape, run, host)] if single else table(shape, run, host)
    except Mistake as mistake:
        print(f"{PROGRAM}: {mistake}", file=sys.stderr)
        return 2
    choice = choose(shape, run, host, options.total_batch) if options.total_batch else None
    if options.json:
        print(json.dumps(document(shape, run, host, rows, choice), indent=2))
    else:
        print("\n".join(lines(shape, run, host, rows, single)))
        if options.total_batch:
            print(advice(choice, options.total_batch))
    # Of a model without its shape only the negative is known.
    return 0 if any(row.fits if shape.whole else row.may for row in rows) else 1
