"""The files and packages that make an image a lived-in host."""

from __future__ import annotations

from pathlib import Path

from tests.lab.profiles import Profile

GUEST = Path(__file__).resolve().parent / "guest"
CA_DIR = Path("/usr/local/share/ca-certificates")
SEED_SERIAL = "sparkfleet-seed"
AGENT_PORT = "sparkfleet.agent"

ROOT_UUID = "6f4a1d62-91a5-4c0f-8a5b-0e5f6a3c7d11"
ABSENT_UUID = "00000000-dead-4ead-8ead-00000000dead"
SCRATCH_LABEL = "scratch"

PACKAGES = [
    "acl",
    "ca-certificates",
    "cron",
    "dbus",
    "dbus-user-session",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-runtime",
    "libpam-systemd",
    "openssh-server",
    "procps",
    "psmisc",
    "python3",
    "python3-venv",
    "stress-ng",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tmux",
    "udev",
    "util-linux",
    "zsh",
]

_SEED_UNIT = """\
[Unit]
Description=Lab: this host's own keys, password and swap files
DefaultDependencies=no
ConditionPathExists=!/var/lib/sparkfleet-lab/seeded
Wants=dev-disk-by\\x2did-virtio\\x2dsparkfleet\\x2dseed.device
After=dev-disk-by\\x2did-virtio\\x2dsparkfleet\\x2dseed.device systemd-remount-fs.service
Before=sysinit.target swap.target swap.img.swap var-swap-second.swap ssh.service ssh.socket shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/lib/sparkfleet-lab/seed.sh

[Install]
WantedBy=sysinit.target
"""

_AGENT_UNIT = """\
[Unit]
Description=Lab: root console for the tests
DefaultDependencies=no
Wants=dev-virtio\\x2dports-sparkfleet.agent.device
After=dev-virtio\\x2dports-sparkfleet.agent.device
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/python3 -I -S /usr/local/lib/sparkfleet-lab/agent.py
Restart=always
RestartSec=1
OOMScoreAdjust=-1000

[Install]
WantedBy=sysinit.target
"""

_AUTOLOGIN = """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM
"""

_SECOND_SWAP = """\
[Unit]
Description=More swap, from a time when 30B did not fit

[Swap]
What=/var/swap/second

[Install]
WantedBy=swap.target
"""

_NETWORK = """\
[Match]
# The machine's own; the ends of containers' cables are ethernets as well.
Name=en*

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
IPv6AcceptRA=no
LinkLocalAddressing=no
"""


def packages(profile: Profile) -> list[str]:
    """What mmdebstrap installs, sorted."""
    kernel = "linux-image-virtual" if profile.ubuntu else f"linux-image-cloud-{profile.arch}"
    if profile.hardware_timer:
        kernel = f"linux-image-{profile.arch}"
    names = [*PACKAGES, kernel, "initramfs-tools"]
    if profile.zram:
        names.append("systemd-zram-generator")
    if profile.suite == "trixie":
        names.append("login")  # part of every older system; without it the console's getty restarts for ever
    return sorted(names)


def fstab(profile: Profile) -> str:
    """An fstab as years of hands leave it: tabs, comments, odd blanks, an absent disk, an escaped space.

    A host with a GPT swap partition has no active swap line: any would stop systemd-gpt-auto-generator from
    looking for swap. Its file also ends without a newline.
    """
    lines = [
        "# /etc/fstab: static file system information.",
        "#",
        "# <file system> <mount point>   <type>  <options>       <dump>  <pass>",
        f"UUID={ROOT_UUID}\t/               ext4    errors=remount-ro 0       1",
        "",
        f"LABEL={SCRATCH_LABEL}\t/mnt/scratch\\040space\text4\tdefaults,nofail\t0\t2",
        f"  UUID={ABSENT_UUID} /mnt/absent ext4 noatime,nofail,x-systemd.device-timeout=2s 0 0",
        "\t# the old data disk, gone since spring; see the wiki page on swap",
        "#/dev/sdb1 /data ext4 defaults 0 2",
        "",
    ]
    if profile.swap_file:
        lines += ["/swap.img\tnone\tswap\tsw\t0\t0   ", "   "]
    else:
        lines += ["#/swap.img none swap sw 0 0"]
    lines.append("tmpfs /srv/fast\ttmpfs size=16m,mode=1777,nofail 0 0")
    return "\n".join(lines) + ("\n" if profile.swap_file else "")


def tree(profile: Profile) -> dict[str, tuple[int, str]]:
    """Absolute path in the guest -> (mode, text), all owned by root."""
    serial = "ttyS0" if profile.arch == "amd64" else "ttyAMA0"
    lib = "usr/local/lib/sparkfleet-lab"
    units = "etc/systemd/system"
    files = {
        f"{lib}/seed.sh": (0o755, (GUEST / "seed.sh").read_text()),
        f"{lib}/agent.py": (0o644, (GUEST / "agent.py").read_text()),
        f"{lib}/setup.sh": (0o755, (GUEST / "setup.sh").read_text()),
        f"{units}/sparkfleet-seed.service": (0o644, _SEED_UNIT),
        f"{units}/sparkfleet-agent.service": (0o644, _AGENT_UNIT),
        f"{units}/serial-getty@{serial}.service.d/autologin.conf": (0o644, _AUTOLOGIN),
        f"{units}/var-swap-second.swap": (0o644, _SECOND_SWAP),
        "etc/systemd/network/10-lab.network": (0o644, _NETWORK),
        "etc/resolv.conf": (0o644, "nameserver 10.0.2.3\n"),
        "etc/fstab": (0o644, fstab(profile)),
    }
    if profile.zram:
        files["etc/systemd/zram-generator.conf"] = (0o644, "[zram0]\nzram-size = ram / 4\n")
    if not profile.sudo_password:
        files["etc/sudoers.d/admin"] = (0o440, "admin ALL=(ALL:ALL) NOPASSWD: ALL\n")
    if CA_DIR.is_dir():
        for crt in sorted(CA_DIR.glob("*.crt")):
            files[f"usr/local/share/ca-certificates/{crt.name}"] = (0o644, crt.read_text())
    return {f"/{path}": content for path, content in files.items()}
