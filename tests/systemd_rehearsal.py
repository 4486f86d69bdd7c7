"""The service in a real systemd: everything that docs/operations.md promises, with real RTP.

Boots a Debian in a container without a network (tests/nspawn.py; needs root and Debian's debootstrap,
systemd-container and iproute2), installs serstream with `make install`, and goes through the steps below in
order. Prints a line per step; exit code 1 at the first that fails, 0 with the reason when this machine cannot
do it.

    python tests/systemd_rehearsal.py [ROOT]     # ROOT: where the Debian is, or shall be made
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from installed_service import drop_in, ended, exposure, inside, listening
from nspawn import CHECKOUT, Machine, cannot, make_debian, starved, wait

ROOT = Path("/var/cache/serstream-rehearsal")
INSTALL = (
    "cd /src && python3 -m venv --system-site-packages /opt/serstream 2>/dev/null; "
    "echo /libraries > $(echo /opt/serstream/lib/python3*/site-packages)/libraries.pth; "
    "make --no-print-directory install PACKAGE=$(echo /wheel/*.whl) PIP_OPTIONS='--no-index --no-deps'"
)
PLAY = "/opt/serstream/bin/python /src/tests/play_call.py"
CONFIGURATION = "/etc/serstream/serstream.toml"
MODELS = "/var/lib/serstream/models"
RECORDING = "/src/serstream/shipped/sample/call.wav"
SECOND = "/etc/serstream/serstream@second.toml"
FEEDS = "tcp://127.0.0.1:5556 tcp://127.0.0.1:5566"
UNIT = "/usr/local/lib/systemd/system/serstream.service"
COMMANDS = f"""
export HOME=/var/lib/serstream PATH=/usr/local/bin:/usr/bin:/bin
cd $HOME
serstream demo > /dev/null & demo=$!
serstream status
serstream reload
serstream check {CONFIGURATION} --set feed.history=9
serstream models list -c {CONFIGURATION}
serstream models activate cnn-2d@9 -c {CONFIGURATION}
serstream models rollback -c {CONFIGURATION}
serstream models shadow cnn-2d@9 -c {CONFIGURATION}
serstream models shadow --off -c {CONFIGURATION}
serstream models canary cnn-2d@9 -c {CONFIGURATION}
serstream models canary --off -c {CONFIGURATION}
serstream models show cnn-2d -c {CONFIGURATION}
serstream models verify {MODELS}/cnn-2d/9
serstream models status -c {CONFIGURATION}
timeout 2 serstream listen || test $? = 124
timeout 2 serstream live || test $? = 124
serstream classify {RECORDING} --picture call.svg
serstream replay {RECORDING} > call.jsonl
serstream replay {RECORDING} -o events
serstream replay call.jsonl --rules {CONFIGURATION}
serstream report call.jsonl -o call.html
serstream export --emotionml call.jsonl > /dev/null
serstream keys new wallboard --keys keys -o wallboard.toml
serstream bench capacity --streams 2 --seconds 2
wait $demo
rm -r call.* events keys wallboard.toml
"""
SECRET = bytes(range(30))
PACKETS_IN_HAND = 5
"""That a killed process may have read and not yet used; the next one cannot have them."""


def installed(machine: Machine) -> str:
    """Ready with one command; again, and the configuration and the active model are kept."""
    machine.run(f"({INSTALL}) > /tmp/install.log 2>&1 || {{ cat /tmp/install.log; exit 1; }}")
    assert machine.show("ActiveState") == "active"
    assert machine.run("systemctl is-enabled serstream") == "enabled"
    at_first = machine.status()["model"]["name"]
    machine.run(f"echo '# kept' >> {CONFIGURATION}")
    machine.run(f"serstream models activate cnn-2d@9 -c {CONFIGURATION}")
    machine.run(INSTALL)
    assert machine.run(f"tail -1 {CONFIGURATION}") == "# kept"
    assert machine.status()["model"]["name"] == "cnn-2d@9"
    machine.run(f"serstream models activate {at_first} -c {CONFIGURATION}")
    return f"{machine.show('StatusText')}; installed again, configuration and models kept"


def rebooted(machine: Machine) -> str:
    """Up by itself after a boot."""
    machine.reboot()
    seconds = wait("ready after boot", lambda: machine.ask("systemctl is-active serstream") == "active", 30)
    assert machine.status()["health"]["sources"] == ["rtp:127.0.0.1:5004"]
    return f"ready {seconds:.1f} s after the other services"


def confined(machine: Machine) -> str:
    """Nothing can be written but the state directory, and no privilege gained."""
    places = (
        "/ /etc /etc/serstream /opt/serstream /usr /home /root /var /var/log /run /boot /var/lib /sys /src"
    )
    written = inside(
        machine, f"for place in {places}; do touch $place/x 2>/dev/null && echo $place; done; true"
    )
    assert written == "", f"written to {written}"
    inside(machine, "touch /var/lib/serstream/x; rm /var/lib/serstream/x")
    tries = {
        "become root": "import os; os.setuid(0)",
        "open a raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "open a packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "make a namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "map writable code": "import mmap; mmap.mmap(-1, 4096, prot=7)",
        "be real-time": "import os; os.sched_setscheduler(0, 1, os.sched_param(1))",
        "make a file set-user-id": (
            "import os; f = '/var/lib/serstream/y'; open(f, 'w'); os.chmod(f, 0o4755)"
        ),
    }
    for number, (attempt, code) in enumerate(tries.items()):
        machine.write(f"/etc/serstream/try{number}.py", code)
        done = inside(
            machine, f"/opt/serstream/bin/python /etc/serstream/try{number}.py 2>/dev/null && echo done; true"
        )
        assert done == "", f"could {attempt}"
    return f"writes to its state directory only; cannot {', '.join(tries)}"


def commanded(machine: Machine) -> str:
    """Every command that is documented, as the service's own user in its sandbox."""
    at_first = machine.status()["model"]["name"]
    told = inside(machine, COMMANDS)
    status = machine.status()["model"]
    assert status["name"] == at_first and status["swaps"] == 2, told
    n_commands = COMMANDS.count("serstream ")
    return f"{n_commands} commands as the service's user in its sandbox, models exchanged and taken back"


def reloaded(machine: Machine) -> str:
    """Reloads under traffic cost no window; a configuration with an error is refused."""
    before = machine.show("MainPID")
    with listening(machine) as heard:
        play = machine.start(f"{PLAY} --seconds 20")
        time.sleep(3)
        for _ in range(3):
            machine.run("systemctl reload serstream")
            time.sleep(1.5)
        machine.run(f"sed -i 's/^#max_delay_ms.*/max_delay_sm = 1/' {CONFIGURATION}")
        machine.refused("systemctl reload serstream")
        machine.run(f"sed -i 's/^max_delay_sm.*/max_delay_ms = 400/' {CONFIGURATION}")
        ends = ended(heard, 2)
    assert play.wait(10) == 0
    assert machine.show("MainPID") == before
    assert not any(end["lost_s"] for end in ends), ends
    return f"{sum(end['windows'] + end['unscored'] for end in ends)} windows, none lost; wrong key refused"


def killed(machine: Machine) -> str:
    """kill -9: back within two seconds, sockets kept, and every packet that they held."""
    play = machine.start(f"{PLAY} --seconds 15 > /tmp/sent")
    time.sleep(5)
    pid = machine.show("MainPID")
    died, starved_s = time.monotonic(), starved()
    machine.run(f"kill -9 {pid}")
    seconds = machine.wait_for_another(pid, 10)
    starved_s = starved() - starved_s
    time.sleep(4)
    (port,) = machine.status()["health"]["ports"]
    streams = port["streams"]
    seen = time.monotonic()
    assert len(streams) == 2 and not port["kernel_drops"], port
    assert not any(stream["lost"] for stream in streams), streams
    assert play.wait(60) == 0
    # The status of a port is up to a second old.
    sent = [[at for at in leg if died < at < seen - 1] for leg in json.loads(machine.run("cat /tmp/sent"))]
    received = [stream["received"] for stream in streams]
    for leg, n in zip(sent, received, strict=True):
        assert n >= len(leg) - PACKETS_IN_HAND, f"{n} packets received of {len(leg)} sent since the kill"
    took = machine.run(f"journalctl -u serstream --no-pager _PID={machine.show('MainPID')}")
    assert took.count("took over the UDP socket") == 2, took
    # On a machine that others keep busy, what they took is theirs.
    assert seconds - starved_s < 2.0, f"ready again after {seconds:.1f} s"
    return (
        f"ready again after {seconds:.1f} s, {starved_s:.1f} of them short of processors; "
        f"both sockets kept, {received} packets since, none lost"
    )


def frozen(machine: Machine) -> str:
    """The watchdog finds a process that does not turn."""
    pid = machine.show("MainPID")
    machine.run(f"kill -STOP {pid}")
    return f"the watchdog had it ready again after {machine.wait_for_another(pid, 30):.1f} s"


def socket_activated(machine: Machine) -> str:
    """systemd opens the ports and starts the service with the first packet, which is not lost."""
    machine.run("systemctl stop serstream && systemctl start serstream.socket")
    assert machine.show("ActiveState") == "inactive"
    play = machine.start(f"{PLAY} --seconds 8 > /tmp/sent")
    wait("started by a packet", lambda: machine.ask("systemctl is-active serstream") == "active", 20)
    time.sleep(2)
    (port,) = machine.status()["health"]["ports"]
    assert play.wait(30) == 0
    assert not any(stream["lost"] for stream in port["streams"]), port
    assert len(port["streams"]) == 2 and port["receive_buffer_bytes"] >= 16 * 2**20, port
    machine.run("systemctl stop serstream.socket serstream.service")
    time.sleep(1)
    assert machine.show("ActiveState") == "inactive"
    machine.run("systemctl start serstream")
    return f"started by a packet, none lost, buffer {port['receive_buffer_bytes'] / 2**20:.0f} MB"


def doubled(machine: Machine) -> str:
    """A second daemon with its own ports: one subscription hears both, each is stopped and killed alone."""
    machine.write(
        SECOND,
        '[[rtp]]\nport = 6004\n[feed]\nendpoint = "tcp://127.0.0.1:5566"\n'
        f'[model]\nrepository = "{MODELS}"\n[metrics]\nport = 9465\n'
        '[control]\nsocket = "/run/serstream@second/control"\n',
    )
    machine.run("systemctl enable --now serstream@second")
    with listening(machine, FEEDS) as heard:
        plays = [machine.start(f"{PLAY} --seconds 8 --port {port}") for port in (5004, 6004)]
        time.sleep(3)
        machine.run("systemctl reload serstream@second")
        ends = ended(heard, 4)
    assert [play.wait(10) for play in plays] == [0, 0]
    assert {end["source"] for end in ends} == {"rtp:5004", "rtp:6004"}, ends
    assert not any(end["lost_s"] for end in ends), ends
    first, second = machine.show("MainPID"), machine.show("MainPID", "serstream@second")
    machine.run(f"kill -9 {second}")
    wait("the second is back", lambda: "reloaded" in machine.ask(f"serstream reload -c {SECOND}"), 10)
    assert machine.show("MainPID") == first
    machine.run("systemctl disable --now serstream@second")
    return "four streams of two daemons in one subscription; the second reloaded, killed and stopped alone"


def keyed(machine: Machine) -> str:
    """SRTP and CURVE secrets that only root can read, passed as credentials by the shipped drop-ins."""
    crypto = f"AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(SECRET).decode()}"
    machine.write("/etc/serstream/credentials/srtp", json.dumps([crypto]), mode="600")
    machine.run("serstream keys new wallboard --keys /etc/serstream/keys -o /tmp/wallboard.toml")
    machine.run("serstream keys new guest --keys /etc/serstream/keys -o /tmp/guest.toml")
    drop_ins = "/etc/systemd/system/serstream.service.d"
    machine.run(
        f"mkdir -p {drop_ins} && cp /opt/serstream/share/serstream/*-keys.conf {drop_ins} && "
        "systemctl daemon-reload && systemctl restart serstream"
    )
    for secret in ("keys/server.toml", "credentials/srtp"):
        inside(machine, f"! cat /etc/serstream/{secret} 2>/dev/null")
    with listening(machine, "--keys /tmp/wallboard.toml") as heard:
        plain = machine.start(f"{PLAY} --seconds 3")
        assert plain.wait(20) == 0
        play = machine.start(f"{PLAY} --seconds 10 --srtp {SECRET.hex()}")
        ends = ended(heard, 2)
        assert play.wait(20) == 0
        machine.run("systemctl reload serstream")
        machine.run("rm /etc/serstream/keys/clients/guest.public")
        told = machine.refused("timeout 10 serstream listen --keys /tmp/guest.toml")
        assert "keys" in told, told
    (port,) = machine.status()["health"]["ports"]
    refused = port["dropped"]["not authenticated"]
    assert refused >= 300 and sum(end["windows"] for end in ends), (port, ends)
    machine.run(f"rm {drop_ins}/*-keys.conf && systemctl daemon-reload && systemctl restart serstream")
    return f"an encrypted call heard, {refused} packets without key and a revoked client refused"


def cut_off(machine: Machine) -> str:
    """A gateway's interface goes down under traffic and comes back."""
    gateway = f"serstream-gateway-{os.getpid()}"
    for command in (
        f"ip netns add {gateway}",
        f"ip -netns {gateway} link add serstream type veth peer name gateway netns {machine.leader}",
        f"ip -netns {gateway} address add 203.0.113.1/30 dev serstream",
        f"ip -netns {gateway} link set serstream up",
    ):
        subprocess.run(command.split(), check=True)
    machine.network("ip address add 203.0.113.2/30 dev gateway")
    machine.network("ip link set gateway up")
    network = (
        'Environment=SERSTREAM_RTP__0__ADDRESS=203.0.113.2 "SERSTREAM_RTP__0__ALLOW=[\\"203.0.113.1/32\\"]"\n'
        "IPAddressAllow=203.0.113.1"
    )
    with drop_in(machine, network), listening(machine) as heard:
        pid = machine.show("MainPID")
        call = [str(CHECKOUT / "tests" / "play_call.py"), "--host", "203.0.113.2", "--seconds", "30"]
        play = subprocess.Popen(
            ["ip", "netns", "exec", gateway, sys.executable, *call], stdout=subprocess.DEVNULL
        )
        time.sleep(6)
        machine.network("ip link set gateway down")
        time.sleep(2)
        machine.network("ip link set gateway up")
        time.sleep(6)
        machine.network("ip link set gateway down")
        time.sleep(8)
        machine.network("ip link set gateway up")
        # The short cut is a hole in both streams, the long one their end and that of their timelines.
        ends = ended(heard, 4)
        assert play.wait(30) == 0
        assert machine.show("MainPID") == pid
    subprocess.run(["ip", "netns", "delete", gateway], check=True)
    reasons = [end["reason"] for end in ends]
    assert reasons == ["timeout", "timeout", "bye", "bye"], ends
    assert all(end["windows"] for end in ends), ends
    return "same process; after 2 s the streams go on, after 8 s they begin anew"


def full(machine: Machine) -> str:
    """No room on the disk: calls go on, a model that cannot be written down is refused."""
    machine.run(
        "systemctl stop serstream && cp -a /var/lib/serstream /tmp/state && "
        "mount -t tmpfs -o size=32M tmpfs /var/lib/serstream && "
        "cp -a /tmp/state/. /var/lib/serstream && chown -R serstream: /var/lib/serstream && "
        "systemctl start serstream"
    )
    machine.ask("dd if=/dev/zero of=/var/lib/serstream/rubbish bs=4k 2>/dev/null")
    active = machine.status()["model"]["name"]
    with listening(machine) as heard:
        play = machine.start(f"{PLAY} --seconds 10")
        time.sleep(2)
        told = machine.refused(f"serstream models activate cnn-2d@9 -c {CONFIGURATION}")
        ends = ended(heard, 2)
        assert play.wait(20) == 0
    assert "No space left" in told and machine.status()["model"]["name"] == active, told
    machine.run("rm /var/lib/serstream/rubbish")
    machine.run(f"serstream models activate cnn-2d@9 -c {CONFIGURATION}")
    machine.run(f"serstream models rollback -c {CONFIGURATION}")
    machine.run("systemctl stop serstream && umount /var/lib/serstream && systemctl start serstream")
    assert not any(end["lost_s"] for end in ends), ends
    return "no window lost, a model refused with the reason and accepted when there was room again"


def widened(machine: Machine) -> str:
    """The drop-ins for a microphone and for CUDA: still ready, and what they cost in exposure."""
    machine.run(f"systemd-analyze security --offline=true --threshold=15 --no-pager {UNIT}")
    exposures = {"RTP": exposure(machine)}
    for name in ("microphone", "cuda"):
        text = machine.run(f"cat /opt/serstream/share/serstream/{name}.conf").split("[Service]")[1]
        with drop_in(machine, text):
            assert machine.show("ActiveState") == "active", name
            complaints = machine.ask("systemd-analyze verify serstream.service 2>&1 | grep -i serstream")
            assert not complaints, complaints
            exposures[name] = exposure(machine)
    assert exposures["RTP"] <= 1.5, exposures
    return f"ready with each; exposure {', '.join(f'{name} {level}' for name, level in exposures.items())}"


def logged(machine: Machine) -> str:
    """Priorities and fields in the journal."""
    lines = machine.run(
        "journalctl -u serstream -o json --no-pager LOGGER=serstream.service.daemon | tail -5"
    )
    for line in lines.splitlines():
        entry = json.loads(line)
        assert entry["PRIORITY"] in "3456" and entry["CODE_FILE"] and entry["THREAD"] == "MainThread", entry
    return "records carry PRIORITY, LOGGER, THREAD and CODE_FILE"


def stopped(machine: Machine) -> str:
    """Every stream is ended and its last window told."""
    with listening(machine) as heard:
        play = machine.start(f"{PLAY} --seconds 20")
        time.sleep(6)
        machine.run("systemctl stop serstream")
        ends = ended(heard, 2)
        play.kill()
    assert [end["reason"] for end in ends] == ["shutdown", "shutdown"], ends
    assert machine.show("Result") == "success"
    return "both streams said goodbye, exit code 0"


def uninstalled(machine: Machine) -> str:
    """Configuration and models are left, nothing else."""
    ours = "/run/systemd/system/serstream-probe.service* /etc/systemd/system/serstream.service.d"
    machine.run(f"rm -rf {ours}")
    for _ in range(2):
        machine.run("cd /src && make --no-print-directory uninstall")
    outside = " ".join(f"-path {place} -prune -o" for place in ("/src", "/libraries", "/wheel", "/proc"))
    found = machine.run(f"find / -xdev {outside} -iname '*serstream*' -print")
    kept = ("/etc/serstream", "/var/lib/serstream")
    left = {line for line in found.splitlines() if not line.startswith(kept)}
    assert not left, left
    assert machine.run(f"ls {CONFIGURATION} {MODELS}")
    return "configuration and models are left, nothing else"


STEPS: tuple[Callable[[Machine], str], ...] = (
    *(
        installed,
        rebooted,
        confined,
        commanded,
        reloaded,
        killed,
        frozen,
        socket_activated,
        doubled,
        keyed,
        cut_off,
    ),
    *(full, widened, logged, stopped, uninstalled),
)


def main() -> int:
    """Make the Debian if need be, and go through the steps."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    if reason := cannot() or make_debian(root):
        print(f"systemd rehearsal not done: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
        subprocess.run([*build, str(CHECKOUT)], check=True)
        try:
            machine = Machine(root, next(Path(folder).glob("*.whl")))
        except TimeoutError:
            print("systemd rehearsal not done: systemd-nspawn does not boot here")
            return 0
        only = os.environ.get("STEPS", "").split()
        try:
            for step in STEPS:
                if not only or step.__name__ in only:
                    began = time.monotonic()
                    print(f"{step.__name__:18}{step(machine)} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception:  # whatever it was, the journal says what the service did
            print(f"FAILED: {step.__name__}: {traceback.format_exc()}")
            print(machine.ask("journalctl -u serstream --no-pager | tail -40"))
            return 1
        finally:
            machine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
