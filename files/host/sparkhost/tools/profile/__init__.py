"""`spark-profile`: finds by trying which batch a training command can have (docs/methodology.md).

* `command`: the command with its placeholders; `recipe`: ready ones;
* `sample`: what is used, many times a second; `step`: one run of the command;
* `fit`: the line through the peaks, what comes next, what is recommended (pure);
* `results`: what is kept on disk, so that a series goes on where it stopped; `plot`: the picture;
* `sweep`: value after value; `cli`: the command.
"""
