"""One break for each control: what is done to a lab host so that exactly this protection is gone.

All breaks of a host are made one after the other and looked at by one probe, so none may undo another's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.compliance.standins import NVCC

STACK = "/opt/sparkfleet/stacks/current/lib/python3.*/site-packages"
VLLM = "/opt/sparkfleet/vllm-source/current/lib/python3.*/site-packages"


@dataclass(frozen=True)
class Break:
    """Shell commands for root, and the controls that must fail by them."""

    controls: tuple[str, ...]
    commands: str


FIRST = (
    Break(
        ("SPK-SWAP-01",),
        "fallocate -l 16M /by-hand.img && chmod 600 /by-hand.img && mkswap /by-hand.img && swapon /by-hand.img",
    ),
    Break(("SPK-SWAP-02",), "printf '/by-hand.img\\tnone\\tswap\\tsw\\t0\\t0\\n' >> /etc/fstab"),
    Break(("SPK-SWAP-03",), "printf '[Unit]\\nConditionPathExists=\\n' > /etc/systemd/system/swap.d/zzz-local.conf"),
    Break(("SPK-SSH-02", "SPK-SSH-03", "SPK-SSH-04"), "chmod a-x /opt/sparkfleet/lib/killable-session"),
    Break(
        ("SPK-SSH-05", "SPK-SSH-06", "SPK-SSH-07"),
        "printf '[Service]\\nOOMScoreAdjust=0\\nMemoryMin=1M\\n' > /etc/systemd/system/ssh.service.d/zz-local.conf;"
        " systemctl daemon-reload",
    ),
    Break(("SPK-SSH-08",), "echo 0 > /proc/$(systemctl show -P MainPID cron.service)/oom_score_adj"),
    Break(("SPK-SSH-01",), "echo 0 > /proc/$(systemctl show -P MainPID ssh.service)/oom_score_adj"),
    Break(("SPK-SSH-09",), "echo 'Nonsense yes' >> /etc/ssh/sshd_config"),
    Break(("SPK-SSH-10",), "systemctl disable ssh.service"),
    Break(
        ("SPK-CUDA-01", "SPK-CUDA-02", "SPK-CUDA-03", "SPK-CUDA-05", "SPK-CUDA-06", "SPK-CUDA-09"),
        "sed -i 's|^CUDA_HOME=.*|CUDA_HOME=/opt/other|' /etc/environment; pkill -HUP -f 'systemd --user'",
    ),
    Break(("SPK-CUDA-04",), "sed -i 's/12.1a/9.0/' /etc/profile.d/zz-sparkfleet-cuda.sh"),
    Break(("SPK-CUDA-07",), "sed -i 's/12.1a/9.0/' /etc/sparkfleet/cuda.env"),
    Break(("SPK-CUDA-08",), "sed -i 's/^LD_LIBRARY_PATH=.*/&:/' /etc/environment"),
    Break(("SPK-CUDA-10",), "rm /usr/local/cuda/bin/ptxas"),
    Break(
        ("SPK-UV-01", "SPK-FLEET-06"),
        "rm /usr/local/bin/uv; printf '#!/bin/sh\\necho uv 0.9.1\\n' > /usr/local/bin/uv; chmod 755 /usr/local/bin/uv",
    ),
    Break(("SPK-UV-02",), "rm /usr/local/bin/uvx"),
    Break(("SPK-STACK-01", "SPK-STACK-02"), f"rm -r {STACK}/tqdm-*.dist-info"),
    Break(("SPK-STACK-03",), f"chmod o+w {STACK}/packaging"),
    Break(("SPK-STACK-06",), f"cd {STACK} && mkdir flash_attn"),
    Break(
        ("SPK-STACK-07",),
        "printf '#!/bin/sh\\nexec /usr/bin/python3 \"$@\"\\n' > /usr/local/bin/spark-python",
    ),
    Break(("SPK-VLLMSRC-01",), "rm /usr/local/bin/spark-vllm-python"),
    Break(("SPK-VLLMSRC-02",), f"cd {VLLM} && echo > zz-local.pth"),
    Break(("SPK-VLLMSRC-03",), f"chmod o+w {VLLM}/vllm"),
    Break(
        ("SPK-VLLMSRC-04",),
        "echo x > /etc/sparkfleet/vllm-source.json; systemctl start sparkfleet-vllm-source || true",
    ),
    Break(("SPK-TOOLS-01",), "rm /usr/local/bin/spark-estimate"),
    Break(
        ("SPK-WATCHDOG-02",),
        "sed -i 's/^term_below = .*/term_below = \"200MiB\"/' /etc/sparkfleet/watchdog.toml;"
        " systemctl reload sparkfleet-watchdog",
    ),
    Break(
        ("SPK-WATCHDOG-03", "SPK-WATCHDOG-04", "SPK-WATCHDOG-05", "SPK-WATCHDOG-06"),
        "mkdir /etc/systemd/system/sparkfleet-watchdog.service.d;"
        " printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/spark-watchdog run --dry-run\nOOMScoreAdjust=0\n"
        "MemoryMin=0\nLimitMEMLOCK=0\nCapabilityBoundingSet=~CAP_IPC_LOCK\n'"
        " > /etc/systemd/system/sparkfleet-watchdog.service.d/zz-local.conf;"
        " systemctl daemon-reload; systemctl restart sparkfleet-watchdog",
    ),
    Break(
        ("SPK-HOST-09",),
        "cp /bin/sleep /usr/local/bin/earlyoom; systemd-run --quiet --unit=earlyoom /usr/local/bin/earlyoom 1d",
    ),
    Break(("SPK-HOST-10",), "date -s @$(date +%s)"),
    Break(
        ("SPK-HOST-11",),
        "fallocate -l $(($(stat -fc '%a * %S' /) - 100 * 1024 * 1024)) /full.img",
    ),
    Break(("SPK-HOST-12",), "echo linux-image > /run/reboot-required.pkgs; touch /run/reboot-required"),
    Break(
        ("SPK-HOST-17",),
        "sed -i '/^Package: cron$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status",
    ),
    Break(("SPK-HOST-18",), "apt-mark hold $(dpkg-query -W -f '${Package} ' 'linux-image-*')"),
    Break(("SPK-HOST-13",), "rm /boot/initrd.img-*"),
    # A job's unit by its name, at another score: the slice has a cgroup then, and the kernel is asked for its limits.
    Break(
        ("SPK-SLICE-10",),
        "systemd-run --quiet --unit=spark-job-1001-00000000 --slice=training.slice -p OOMScoreAdjust=0 sleep 1d",
    ),
    Break(
        ("SPK-SLICE-01", "SPK-SLICE-02", "SPK-SLICE-03"),
        "systemctl set-property --runtime training.slice MemoryMax=infinity TasksMax=infinity",
    ),
    Break(
        ("SPK-SLICE-04",),
        "mkdir -p /etc/systemd/system/user-1001.slice.d; printf '[Slice]\\nMemoryMax=infinity\\n' > "
        "/etc/systemd/system/user-1001.slice.d/zz-local.conf; systemctl daemon-reload",
    ),
    Break(
        ("SPK-SLICE-05",),
        "rm /etc/systemd/system/user-1000.slice.d/50-sparkfleet-training.conf; systemctl daemon-reload",
    ),
    Break(("SPK-SLICE-06",), "systemctl stop sparkfleet-launcher.socket"),
    Break(("SPK-SLICE-07",), "systemctl disable sparkfleet-launcher.socket"),
    Break(("SPK-SLICE-08",), "groupadd --force docker; gpasswd --add bob docker"),
    Break(("SPK-SLICE-09",), "sed -i s/training.slice/system.slice/ /etc/docker/daemon.json"),
)
"""On spark1."""

SECOND = (
    Break(("SPK-SSH-11",), "systemctl set-property --runtime ssh.service MemoryMin=600M"),
    Break(("SPK-SSH-12",), "sed -i '1i UsePAM no' /etc/ssh/sshd_config"),
    Break(
        ("SPK-CUDA-11",),
        "rm /etc/ld.so.conf.d/sparkfleet-cuda.conf; ldconfig",
    ),
    Break(("SPK-UV-03",), "mkdir -p /etc/uv; printf 'nonsense = 1\\n' > /etc/uv/uv.toml"),
    Break(("SPK-UV-04",), "chmod 777 /opt/sparkfleet/uv/0.13.9"),
    Break(("SPK-TOOLS-02",), "chmod o+w /opt/sparkfleet/lib/tools/current/sparkhost"),
    Break(("SPK-WATCHDOG-08",), "echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml"),
    Break(
        ("SPK-WATCHDOG-01", "SPK-WATCHDOG-07"),
        "systemctl disable sparkfleet-watchdog; systemctl stop sparkfleet-watchdog",
    ),
    Break(("SPK-FLEET-01",), "printf '%s\\n' {machine_id} > /etc/machine-id"),
    Break(("SPK-FLEET-02",), "printf '%s\\n' '{host_key}' > /etc/ssh/ssh_host_ed25519_key.pub"),
    Break(("SPK-FLEET-05",), f'printf %s "{NVCC.format(release="12.9")}" > /usr/local/cuda/bin/nvcc'),
    Break(("SPK-FLEET-03",), "true  # Debian 12 and Debian 13 have different kernels"),
)
"""On spark2; `{machine_id}` and `{host_key}` are spark1's."""

LAST = (
    Break(
        ("SPK-HOST-08",),
        "printf '[Service]\nTemporaryFileSystem=/sys/fs/cgroup\n' > /etc/systemd/system/ssh.service.d/zz-local.conf;"
        " systemctl daemon-reload; systemctl restart ssh.service",
    ),
)
"""On spark1, alone: sessions see an empty directory where the cgroups were, and PID 1 is left in peace."""

CUT = (Break(("SPK-HOST-15",), "(sleep 2; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &"),)
"""On spark1, alone: it starts again at once, without a shutdown."""
