"""What is known of a process that may end at any moment: nothing, once it has ended."""

import psutil


def title_of(process: psutil.Process) -> str:
    """Its arguments, with blanks between them; empty if it has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.NoSuchProcess:
        return ""


def listening_ports(process: psutil.Process) -> set[int]:
    """The TCP ports that it listens on."""
    try:
        connections = process.net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return set()
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
