"""Two Sparks of a lab; any inventory of pyinfra's will do."""

sparks = ["spark1.example.org", "spark2.example.org"]
