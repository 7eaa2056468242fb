"""`spark-estimate`: what a training run will need at its peak, before it is started (docs/estimate.md).

* `sizes`: those of a model that count;
* `shape`: their count from a Hugging Face config.json, by `kinds` and `towers`;
* `terms`: each part of the peak, with the source of its figure, by `optimizers` and `allocator`;
* `fit`: which batch leaves enough for everybody else;
* `cli`: the command.
"""
