"""How the boot before this one ended, and why: `spark-why --last-boot`.

`gather` reads the host: the journal, what a panic left behind, the hardware timer's word, the observer's ring. `traces`
makes sense of texts, `judge` is a table over what they say, `words` tells a person. Only `gather` touches the host.
"""
