"""Room for the server of the measure vllm_container: it is started only once the memory that it takes is available.

A Spark's driver is reported to give back tens of GiB late, or not at all, after an engine was ended hard; a server that
is started again at once takes the rest, until the host answers nothing (vllm#45179, spark-vllm-docker#257).
"""
