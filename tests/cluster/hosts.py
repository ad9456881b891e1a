"""Hosts of a small network on one machine, each its own namespaces: addresses, host name, processes and an sshd.

A host is one process, its sshd, and all else on it lives in that process's namespaces: killing it is a power cut, and
removes every process, address and mount of the host. Nothing outlives the process that made the network, which keeps no
name and no file outside its folder. The file system is shared, as a cluster's should be.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "pkill", "sshd", "ssh", "ssh-keygen", "pdsh")
PACKAGES = "iproute2, util-linux, procps, openssh-server, openssh-client, pdsh"
NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")
# setpriv: the host goes when whoever made it does, however that ends.
START = ("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child=KILL")

BOOT = """
hostname "$1"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/ssh_config" /etc/ssh/ssh_config
ip link set lo up
exec "$3" -D -e -f "$2/sshd_config"
"""
SSH = """Host *
IdentityFile {folder}/user_key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""
SSHD = """Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
"""


def why_not() -> str | None:
    """Why this machine cannot have such hosts, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: {PACKAGES})"
    tried = subprocess.run(
        [
            *START,
            *NAMESPACES,
            "--mount-proc",
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /run && ip link add name b type bridge",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"needs root and namespaces: {tried.stderr.strip()[:200]}" if tried.returncode else None


class Host:
    """One host; `network` is that of whoever made it."""

    def __init__(self, number: int, folder: Path, switch: int) -> None:
        self.name, self.address = f"host{number}", f"10.77.0.{number}"
        self._number, self._folder, self._switch = number, folder, switch
        self._init: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start it and plug it in; returns when ssh answers."""
        sshd = shutil.which("sshd")
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._init = subprocess.Popen(
                [*START, *NAMESPACES, "--mount-proc", "sh", "-ec", BOOT, "_", self.name, str(self._folder), str(sshd)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test, which then ends it
            )
        await_that(lambda: self.call("hostname").stdout.strip() == self.name, 20, f"{self.name} has its name")
        own = ["name", "eth0", "address", f"02:00:00:00:00:{self._number:02x}", "netns", str(self._pid())]
        in_network(self._switch, "link", "add", f"port{self._number}", "type", "veth", "peer", *own)
        self.plug_in()
        for words in (["addr", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            self.call("ip", *words, check=True)
        knock = ["bash", "-c", f"exec 3<>/dev/tcp/{self.address}/22"]
        await_that(lambda: self.call(*knock).returncode == 0, 20, f"{self.name} answers")

    def _pid(self) -> int:
        """Of its first process, as this machine numbers it."""
        if self._init is None:
            raise ProcessLookupError(f"{self.name} is off")
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        if not children:
            raise ProcessLookupError(f"{self.name} is off")
        return int(children[0])

    def command(self, *words: str) -> list[str]:
        """`words`, to be run on this host in the caller's folder."""
        return ["nsenter", "--target", str(self._pid()), *NAMESPACES, f"--wdns={Path.cwd()}", "--", *words]

    def call(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        try:
            command = self.command(*words)
        except (ProcessLookupError, FileNotFoundError):
            return subprocess.CompletedProcess(words, 255, "", f"{self.name} is off")
        return subprocess.run(command, capture_output=True, text=True, check=check)

    def is_on(self) -> bool:
        return self._init is not None

    def power_off(self) -> None:
        """Without a word to anybody: no connection is closed."""
        self.unplug()  # first, or the dying processes would still close their connections
        self.end()
        in_network(self._switch, "link", "del", f"port{self._number}", may_fail=True)  # the kernel may have been first

    def end(self) -> None:
        """With all that runs on it."""
        if self._init is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid(), signal.SIGKILL)
            self._init.wait()
            self._init = None

    def unplug(self) -> None:
        """Cut its link at the switch: what it sends is lost, and its own side notices nothing."""
        in_network(self._switch, "link", "set", f"port{self._number}", "nomaster")

    def plug_in(self) -> None:
        in_network(self._switch, "link", "set", f"port{self._number}", "master", "switch", "up")


def in_network(pid: int, *words: str, may_fail: bool = False) -> None:
    command = ["nsenter", "--target", str(pid), "--net", "--", "ip", *words]
    subprocess.run(command, check=not may_fail, stderr=subprocess.DEVNULL if may_fail else None)


@contextmanager
def network(folder: Path, num_hosts: int) -> Iterator[list[Host]]:
    """host1, host2, ... on a switch that is a namespace too; at the end nothing is left of them."""
    folder.mkdir()
    for key in ("user_key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "ssh_config").write_text(SSH.format(folder=folder))
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    names = [f"10.77.0.{number} host{number}" for number in range(1, num_hosts + 1)]
    # An address of the network that nobody has: packets to it are lost.
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, "10.77.0.200 nobody", ""]))
    switch = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c",
         "ip link add name switch type bridge && ip link set switch up && echo up && exec sleep infinity"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    hosts: list[Host] = []
    try:
        assert switch.stdout is not None
        assert switch.stdout.readline() == b"up\n"
        for number in range(1, num_hosts + 1):
            hosts.append(Host(number, folder, switch.pid))
            hosts[-1].boot()
        yield hosts
    finally:
        for host in hosts:
            host.end()
        switch.kill()
        switch.wait()


def await_that(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:.0f} s until {what}")
        time.sleep(0.05)
