# managed by sparkfleet (measure: stack). To take it back: `stack: {constrain_users: false}` in the fleet file.
# `uv pip install torch` in a user's own environment takes the builds for this host's CUDA, and never flash-attn. Whoever
# wants others sets UV_CONSTRAINT, also to nothing.
if [ -z "${UV_CONSTRAINT+set}" ] && [ -r /opt/sparkfleet/stacks/current/cuda-constraints.txt ]; then
    export UV_CONSTRAINT=/opt/sparkfleet/stacks/current/cuda-constraints.txt
fi
