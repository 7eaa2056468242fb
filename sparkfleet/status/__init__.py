"""`sparkfleet status` and `sparkfleet watch`: what every host is doing now, on a terminal and in a browser.

    program   the reader that goes to a host (sparkhost.status), and the command that starts it there
    stream    one ssh a host, whose lines are read within bounds; connects again when it ends
    shape     what a host may say, checked where it comes in
    records   what this controller knows itself: the last audit, the last deploy or drift
    fleet     all of that as one state, and what of it needs a person
    table, live, web    show it

A host is the only author of what it says, and may be broken or hostile: its texts are made plain in
`shape`, its lines have a length and a rate, and each way in which it fails costs its own line only.
"""
