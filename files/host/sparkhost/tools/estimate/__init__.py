"""`spark-estimate`: what a run or a server will need at its peak, before it is started (docs/estimate.md).

* `sizes`: those of a model that count;
* `shape`: their count from a Hugging Face config.json, by `kinds` and `towers`; `quantised`: bytes of its file;
* `terms`: each part of a training run's peak, with the source of its figure, by `optimizers`, `allocator` and `shard`;
* `serve`: the same for vLLM, by `cache`; `load`: the peak of loading either;
* `fit`: which batch leaves enough for everybody else;
* `cli`: the command, with `options` and `report`.
"""
