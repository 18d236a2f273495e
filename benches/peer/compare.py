#!/usr/bin/env python3
"""The contract stage of accrue beside the same stage on Kafka Streams, and the ladder of accrue's own costs.

    compare.py ladder|peer|latency|restart|state [--deals N] ...     (tools/bench starts the servers and calls this)

Both programs read the same topic on the same broker, one after the other, each pinned to core 0 with one stream thread;
the broker and this program have the other cores, where there are any. CPU seconds are the kernel's count for the
process (all its threads), between two positions in the input: what comes before the first is warm-up. Figures of throughput count only when the hashes of all output topics are equal.

Owns the processes it starts, by id. Absent on purpose: what the programs do (main.rs, ../kafka-streams).
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

HERE = Path(__file__).resolve().parent
BOOTSTRAP, REGISTRY = os.environ["KAFKA_BOOTSTRAP"], os.environ["REGISTRY_URL"]
RUST, JAVA, JAR = os.environ["BENCH_PEER"], os.environ["BENCH_JAVA"], HERE.parent / "kafka-streams" / "target"
HEAP = os.environ.get("BENCH_HEAP", "512m")
RUNGS = ["consume", "copy", "changelog", "store", "decode", "domain"]
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 3600
# Of a latency run: connections are made, metadata is asked for.
WARM_SECONDS = 3


def rust(*arguments):
    done = subprocess.run([RUST, "--kafka", BOOTSTRAP, "--registry", REGISTRY, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: failed")
    return done.stdout


class Input:
    """A topic of facts; `ends` are the positions after its last records."""

    def __init__(self, name, given, *more):
        self.name, self.topic, self.given = name, f"{name}.contract.facts", given
        arguments = ["load", "--input", name, "--partitions", str(given.partitions), "--deals", str(given.deals),
                     "--term-months", str(given.term_months), "--amended-percent", str(given.amended), *more]
        self.ends = dict(map(int, line.split()) for line in rust(*arguments).splitlines())

    def records(self):
        return sum(self.ends.values())


class Side:
    """One program: its process, and its positions in an input."""

    def __init__(self, name, kind, given, rung="domain", instance=None):
        self.prefix = f"{name}-{uuid.uuid4().hex[:8]}"
        self.kind, self.given, self.rung, self.instance = kind, given, rung, instance
        self.state = tempfile.mkdtemp(prefix=f"accrue-bench-{name}-", dir=given.work)
        self.process = None
        rust("apply", "--prefix", self.prefix, "--partitions", str(given.partitions))

    def start(self, source):
        if self.kind == "accrue":
            command = [RUST, "--kafka", BOOTSTRAP, "--registry", REGISTRY, "run", "--prefix", self.prefix, "--input",
                       source.name, "--state", self.state, "--rung", self.rung, "--term-months", str(self.given.term_months),
                       "--memory-mib", str(self.given.memory_mib)]
        else:
            command = [JAVA, "-XX:+UseSerialGC", f"-Xms{HEAP}", f"-Xmx{HEAP}", "-cp", f"{JAR}/peer.jar:{JAR}/lib/*", "io.accrue.peer.Peer",
                       "--kafka", BOOTSTRAP, "--registry", REGISTRY, "--prefix", self.prefix, "--input", source.name,
                       "--state", self.state]
        command += ["--instance", self.instance] if self.instance else []
        self.source = source
        self.process = subprocess.Popen(["taskset", "-c", "0", *command])
        self.positions = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": self.prefix, "enable.auto.commit": False})

    def done(self):
        """Committed positions of the input, by partition."""
        if self.process.poll() is not None:
            sys.exit(f"{self.prefix} ended with {self.process.returncode}")
        asked = [TopicPartition(self.source.topic, n) for n in self.source.ends]
        try:
            found = self.positions.committed(asked, timeout=30)
        except KafkaException as error:
            # A broker that has just started makes the topic of groups first.
            if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                raise
            found = asked
        return {it.partition: max(it.offset, 0) for it in found}

    def wait(self, records, every=0.01):
        """Until so many records are done; those that were."""
        began = time.monotonic()
        while True:
            done = self.done()
            at_end = all(done[n] >= end for n, end in self.source.ends.items())
            if at_end or sum(done.values()) >= records:
                return sum(min(done[n], end) for n, end in self.source.ends.items())
            if time.monotonic() - began > PATIENCE_SECONDS:
                sys.exit(f"{self.prefix} did not get to record {records}")
            time.sleep(every)

    def cpu(self):
        return cpu(self.process.pid)

    def rss(self):
        """The peak in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        self.positions.close()

    def digest(self):
        return rust("digest", "--prefix", self.prefix)

    def forget_outputs(self):
        """Lets the broker drop old outputs, which nobody compares: those of millions of contracts fill a disk."""
        admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
        settings = {"retention.bytes": 64 << 20, "segment.bytes": 64 << 20, "file.delete.delay.ms": 1000}
        few = [ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
        outputs = ["contract.state", "recognition.schedule", "billing.schedule", "journal.entries"]
        asked = [ConfigResource(ResourceType.TOPIC, f"{self.prefix}.{name}", incremental_configs=few) for name in outputs]
        for done in admin.incremental_alter_configs(asked).values():
            done.result()

    def remove(self):
        """Gives the broker's disk back."""
        admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
        mine = [name for name in admin.list_topics(timeout=30).topics if name.startswith((f"{self.prefix}.", f"{self.prefix}-"))]
        for deleted in admin.delete_topics(mine).values():
            deleted.result()
        subprocess.run(["rm", "-rf", self.state], check=True)


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def leave_core_0():
    """Moves the broker, and this program, off the core that is measured."""
    others = os.sched_getaffinity(0) - {0}
    if others:
        for thread in os.listdir(f"/proc/{broker_pid()}/task"):
            os.sched_setaffinity(int(thread), others)
        os.sched_setaffinity(0, others)


def broker_pid():
    return int(dict(pair.split(":") for pair in os.environ["PIDS"].split(","))["kafka"])


def measure(side, source, warm):
    """Runs a side over an input; figures of what follows the first `warm` records."""
    side.start(source)
    first = side.wait(warm)
    began, used, broker = time.monotonic(), side.cpu(), cpu(broker_pid())
    last = side.wait(source.records())
    seconds, used, broker = time.monotonic() - began, side.cpu() - used, cpu(broker_pid()) - broker
    records, rss = last - first, side.rss()
    side.stop()
    return {"records": records, "seconds": seconds, "cpu": used, "rss": rss, "broker": broker}


def row(name, it):
    if it["cpu"] == 0:
        sys.exit(f"{name}: the input is too small to measure; give more --deals")
    per_cpu = it["records"] / it["cpu"]
    print(f"| {name} | {it['records']:,} | {it['seconds']:.1f} | {it['records'] / it['seconds']:,.0f} | {it['cpu']:.1f} | "
          f"{per_cpu:,.0f} | {1e6 / per_cpu:,.0f} | {it['broker'] / it['records'] * 1e6:,.0f} | {it['rss']:.0f} |", flush=True)
    return per_cpu


HEAD = ("| | facts | seconds | facts/s | CPU s | facts per CPU s | CPU us a fact | broker CPU us a fact | peak RSS MB |\n"
        "|---|---|---|---|---|---|---|---|---|")


def ladder(given):
    source = Input(f"in-{uuid.uuid4().hex[:8]}", given)
    print(HEAD)
    per_cpu = {}
    for rung in given.rungs.split(","):
        side = Side(rung, "accrue", given, rung)
        per_cpu[rung] = row(rung, measure(side, source, source.records() * given.warm // 100))
        side.remove()
    if {"domain", "changelog"} <= per_cpu.keys():
        print(f"\ndomain over ceiling (changelog), in facts per CPU second: {100 * per_cpu['domain'] / per_cpu['changelog']:.0f} %")


def peer(given):
    source = Input(f"in-{uuid.uuid4().hex[:8]}", given)
    sides, digests, per_cpu, rss = {}, {}, {}, {}
    print(HEAD)
    for kind in ("accrue", "kafka-streams"):
        side = sides[kind] = Side(kind, kind, given)
        it = measure(side, source, source.records() * given.warm // 100)
        per_cpu[kind], rss[kind] = row(kind, it), it["rss"]
        digests[kind] = side.digest()
    same = digests["accrue"] == digests["kafka-streams"]
    print("\n| topic | records | value bytes | SHA-256 |\n|---|---|---|---|")
    for line in digests["accrue"].splitlines():
        print("| " + " | ".join(line.split()) + " |")
    if not same:
        sys.exit(f"the outputs differ, so no figure counts; Kafka Streams wrote\n{digests['kafka-streams']}")
    print("\nthe outputs of both are equal")
    print(f"facts per CPU second: {per_cpu['accrue'] / per_cpu['kafka-streams']:.2f} times Kafka Streams'")
    print(f"peak RSS: {rss['accrue'] / rss['kafka-streams']:.2f} of Kafka Streams'")
    for side in sides.values():
        side.remove()


def latency(given):
    """From sending a fact to reading its contract.state, committed, at a fixed rate, after a warm-up at full speed."""
    print("| | facts/s | p50 ms | p99 ms | max ms | CPU % of a core |\n|---|---|---|---|---|---|")
    reserve = Input(f"reserve-{uuid.uuid4().hex[:8]}", given, "--first", "100000000")
    warm = given.rate * WARM_SECONDS
    facts = read_all(reserve, given.rate * given.seconds + warm)
    for kind in given.sides.split(","):
        source = Input(f"in-{uuid.uuid4().hex[:8]}", given)
        side = Side(kind, kind, given)
        side.start(source)
        side.wait(source.records())
        reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": f"{side.prefix}-reader", "isolation.level": "read_committed",
                           "auto.offset.reset": "latest", "enable.auto.commit": False, "fetch.wait.max.ms": 20})
        topic = f"{side.prefix}.contract.state"
        reader.assign([TopicPartition(topic, n, reader.get_watermark_offsets(TopicPartition(topic, n), timeout=30)[1])
                       for n in source.ends])
        producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 0, "enable.idempotence": True})
        sent, taken, used, began = {}, [], side.cpu(), time.monotonic()
        n = 0
        while len(taken) < len(facts):
            while n < len(facts) and time.monotonic() - began >= n / given.rate:
                key, value, headers = facts[n]
                # Deals of the reserve close once each: the deal's key names the fact.
                sent[key] = time.monotonic()
                producer.produce(source.topic, value, key, headers=headers)
                n += 1
            producer.poll(0)
            message = reader.poll(0.001)
            if message is not None and message.error() is None:
                taken.append(time.monotonic() - sent[message.key()])
            if time.monotonic() - began > given.seconds + 60:
                sys.exit(f"{kind}: only {len(taken)} of {n} facts came through")
        used, seconds = side.cpu() - used, time.monotonic() - began
        taken = sorted(taken[warm:])
        print(f"| {kind} | {given.rate} | {1e3 * statistics.median(taken):.0f} | {1e3 * taken[int(len(taken) * 0.99)]:.0f} | "
              f"{1e3 * taken[-1]:.0f} | {100 * used / seconds:.0f} |", flush=True)
        side.stop()
        reader.close()
        side.remove()


def read_all(source, count):
    """Closes from an input: key, value, headers."""
    reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": f"{source.name}-reader", "isolation.level": "read_committed",
                       "enable.auto.commit": False})
    reader.assign([TopicPartition(source.topic, n, 0) for n in source.ends])
    facts, since = [], time.monotonic()
    while len(facts) < count:
        message = reader.poll(0.5)
        if message is not None and message.error() is None and (b"deal.closed" == dict(message.headers())["ce_type"]):
            facts.append((message.key(), message.value(), message.headers()))
            since = time.monotonic()
        elif time.monotonic() - since > 10:
            sys.exit(f"the reserve has {len(facts)} closes, not {count}: give more --deals")
    reader.close()
    return facts


def restart(given):
    """SIGKILL with state, and the time until the restarted process has committed something new. Static membership on
    both sides: otherwise both wait for the dead member's session timeout first."""
    print("| | contracts | seconds to the first new commit |\n|---|---|---|")
    for kind in given.sides.split(","):
        source = Input(f"in-{uuid.uuid4().hex[:8]}", given)
        side = Side(kind, kind, given, instance="one")
        side.start(source)
        before = side.wait(source.records(), 0.5)
        time.sleep(2)
        side.stop(signal.SIGKILL)
        more = argparse.Namespace(**vars(given) | {"deals": 1_000})
        source.ends = Input(source.name, more, "--first", "100000000").ends
        began = time.monotonic()
        side.start(source)
        side.wait(before + 100, 0.01)
        seconds = time.monotonic() - began
        print(f"| {kind} | {given.deals:,} | {seconds:.2f} |", flush=True)
        side.stop()
        side.remove()


def state(given):
    """CPU per fact while the number of contracts grows."""
    source = Input(f"in-{uuid.uuid4().hex[:8]}", given)
    print("| | facts done | CPU us a fact since the line before | peak RSS MB |\n|---|---|---|---|")
    for kind in given.sides.split(","):
        side = Side(kind, kind, given)
        side.forget_outputs()
        side.start(source)
        done = side.wait(given.first_step)
        used = side.cpu()
        target = done
        while done < source.records():
            target = min(max(target * 2, done + 1), source.records())
            now = side.wait(target, 0.2)
            print(f"| {kind} | {now:,} | {1e6 * (side.cpu() - used) / (now - done):,.0f} | {side.rss():.0f} |", flush=True)
            done, used = now, side.cpu()
        side.stop()
        side.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ladder", "peer", "latency", "restart", "state"])
    parser.add_argument("--deals", type=int, default=100_000)
    parser.add_argument("--amended", type=int, default=50, help="deals amended, in percent (default 50)")
    parser.add_argument("--term-months", type=int, default=12, help="shorter terms make small contracts (default 12)")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--warm", type=int, default=40, help="percent of the input before measuring begins (default 40)")
    parser.add_argument("--rungs", default=",".join(RUNGS))
    parser.add_argument("--sides", default="accrue,kafka-streams")
    parser.add_argument("--memory-mib", type=int, default=256, help="accrue's memory budget (default 256)")
    parser.add_argument("--rate", type=int, default=200, help="facts a second for latency (default 200)")
    parser.add_argument("--seconds", type=int, default=60, help="how long latency is measured (default 60)")
    parser.add_argument("--first-step", type=int, default=10_000, help="facts before the first line of `state`")
    parser.add_argument("--work", default=tempfile.gettempdir(), help="folder for state stores")
    given = parser.parse_args()
    leave_core_0()
    {"ladder": ladder, "peer": peer, "latency": latency, "restart": restart, "state": state}[given.what](given)


if __name__ == "__main__":
    main()
