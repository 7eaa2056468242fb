"""`spark-estimate`: what a training run will need at its peak, before it is started (docs/estimate.md).

* `shape`: what a Hugging Face config.json says of a model;
* `terms`: each part of the peak, with the source of its figure;
* `fit`: which batch leaves enough for everybody else;
* `cli`: the command.
"""
