"""What lab hosts lack of a Spark, stood in for, so that an audit of them can be green. Nothing of it is deployed."""

from __future__ import annotations

# struct timex: modes = ADJ_MAXERROR | ADJ_STATUS, maxerror and status 0. The lab has no time server.
SYNCHRONISE = """\
/usr/bin/python3 -I -c '
import ctypes
timex = (ctypes.c_long * 64)()
timex[0] = 0x4 | 0x10
ctypes.CDLL(None).adjtimex(ctypes.byref(timex))'
"""
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n"
# The toolkit as a tree with a compiler that says its release; a dockerd that takes every configuration and never runs;
# qemu boots the kernel itself, so /boot has no initrd.
PREPARE = f"""\
set -e
mkdir -p /usr/local/cuda-13.0/bin /usr/local/cuda-13.0/lib64
ln -sfn cuda-13.0 /usr/local/cuda
printf %s "{NVCC.format(release="13.0")}" > /usr/local/cuda/bin/nvcc
cp /bin/true /usr/local/cuda/bin/ptxas
chmod 755 /usr/local/cuda/bin/nvcc
mkdir -p /etc/docker
[ -e /usr/bin/dockerd ] || {{ printf '#!/bin/sh\n' > /usr/bin/dockerd; chmod 755 /usr/bin/dockerd; }}
cp -L "$(/sbin/ldconfig -p | sed -n 's/.*libacl.so.1 .*=> //p' | head -1)" /usr/local/cuda/lib64/
for kernel in /boot/vmlinuz-*; do echo stands in > "/boot/initrd.img-${{kernel#/boot/vmlinuz-}}"; done
{SYNCHRONISE}"""
