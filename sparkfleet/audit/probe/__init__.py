"""The probe: one program, standard library only, that looks at a host and changes nothing there.

`frame`, `look`, `as_user`, `as_root`, `as_root_*`, `environment` and `main` run on the host, from the input of one
`python3` (3.11 or later); nothing of them is installed. `program` stays here: it puts the program together.
"""
