"""Checks of the hosts beside each other: the names by which gloo finds them, their clocks."""

import fcntl
import ipaddress
import os
import socket
import struct
import time
from typing import Any

from bert_lamb.doctor.examination import Examination
from bert_lamb.doctor.finding import Finding, failed, name_ranks, ok, warning

MAX_SKEW_SECONDS = 1.0
SIOCGIFADDR = 0x8915  # Linux: the address of an interface


def collect_host_names(examination: Examination) -> dict[str, Any]:
    host = socket.gethostname()
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    interfaces = interface_addresses()
    address = _address_toward(os.environ.get("MASTER_ADDR", ""))
    return {
        "addresses": sorted(found),
        "interfaces": interfaces,
        "interface": next((name for name, one in interfaces.items() if one == address), None),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME"),
    }


def interface_addresses() -> dict[str, str]:
    """The IPv4 address of each interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _address_toward(master: str) -> str | None:
    """This machine's address on the way to the meeting point; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((master or "192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def judge_host_names(examination: Examination, by_rank: list[dict[str, Any]]) -> Finding:
    """gloo offers the address of the host's own name: of a name that means the loopback, only to this host itself."""
    hosts = examination.hosts
    facts = {host: by_rank[rank] for rank, host in reversed(list(enumerate(hosts)))}
    ways = ", ".join(f"{host} by {one['interface'] or 'an unknown interface'}" for host, one in sorted(facts.items()))
    if len(facts) == 1:
        return ok(f"one host, {hosts[0]}")
    wrong: dict[str, str] = {}
    for host, one in sorted(facts.items()):
        chosen = one["GLOO_SOCKET_IFNAME"]
        if chosen:
            if missing := [name for name in chosen.split(",") if name not in one["interfaces"]]:
                wrong[host] = f"GLOO_SOCKET_IFNAME={chosen} on {host}, which has no interface {missing[0]}"
        elif not one["addresses"]:
            wrong[host] = f"{host} does not resolve its own name"
        elif any(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in one["addresses"]):
            wrong[host] = f"{host} resolves its own name to {one['addresses'][0]}, the loopback"
    if not wrong:
        return ok(f"{len(facts)} hosts: {ways}")
    interfaces = list(dict.fromkeys(facts[host]["interface"] for host in wrong if facts[host]["interface"]))
    chosen = ",".join(interfaces) or "INTERFACE"
    fix = (
        f"set GLOO_SOCKET_IFNAME={chosen} for every rank (under scripts/launch/hostfile.sh a line of .deepspeed_env),"
        " or take the name off the line 127.0.1.1 of /etc/hosts"
    )
    said = "; ".join(wrong.values())
    if examination.process.device.type == "cuda":
        return warning(f"{said}; NCCL chooses interfaces itself, gloo does not", fix=fix)
    return failed(f"{said}, where gloo would wait for the others", fix=fix)


def collect_clocks(examination: Examination) -> list[float]:
    """[start, clock, end]: this rank's clock was read after every rank's start and before every rank's end."""
    start = time.time()
    examination.ranks.gather("clocks/start", None)
    clock = time.time()
    examination.ranks.gather("clocks/end", None)
    return [start, clock, time.time()]


def judge_clocks(examination: Examination, by_rank: list[list[float]]) -> Finding:
    """How far a clock is surely off rank 0's: outside of the time between rank 0's start and end."""
    hosts = examination.hosts
    if len(set(hosts)) == 1:
        return ok("one host")
    start, _, end = by_rank[0]
    skews = [max(0.0, start - clock, clock - end) for _, clock, _ in by_rank]
    worst = max(range(len(skews)), key=skews.__getitem__)
    window = f"beyond the {end - start:.3f} s that asking took"
    if skews[worst] > MAX_SKEW_SECONDS:
        return warning(
            f"the clock of {name_ranks([worst], hosts)} is {skews[worst]:.1f} s off rank 0's, {window}",
            fix="synchronize the clocks (chrony, ntpd): times of logs, checkpoints and files are compared across hosts",
        )
    return ok(f"within {skews[worst]:.3f} s of rank 0's, {window}")
