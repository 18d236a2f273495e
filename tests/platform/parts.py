"""The servers of the platform: how each is prepared, started and asked whether it is ready.

Owns the settings of PostgreSQL, Kafka, the schema registry, Kafka Connect, an S3 server and a network proxy for tests.
Invariant: a part listens on 127.0.0.1 only, keeps its data below its own folder, and
keeps its ports, so that it can be killed and started again under the same address.
Absent on purpose: processes and their ids (platform), packages (packages.py).
"""

import json
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import packages
from packages import Missing

HOST = "127.0.0.1"
LOG4J = """<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c{1})%n%throwable"/></Console></Appenders>
  <Loggers><Root level="info"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class Part:
    """One server. `ports` is filled before the first start and kept for later ones."""

    name = ""
    needs = ()  # parts that must be ready before this one starts, and whose ports it is told
    port_names = ()

    def __init__(self, folder, ports, others=()):
        self.folder = Path(folder) / self.name
        self.ports = ports
        self.others = dict(others)  # ports of the parts it needs, by part

    def prepare(self):
        """Writes settings and formats storage; does nothing to data that is there."""

    def command(self):
        """Arguments of the server process."""
        raise NotImplementedError

    def user(self):
        """The account that runs the server, where it must not be this one."""
        return None

    def ready(self):
        """Whether the server answers as it should; cheap, called often."""
        raise NotImplementedError

    def after_start(self):
        """Settings that the server takes only over its own protocol; may run again."""

    def env(self):
        """What tests need to reach it."""
        raise NotImplementedError


class Postgres(Part):
    name = "postgres"
    port_names = ("sql",)

    def prepare(self):
        # Called only while our server is down. Where nothing reaps orphans its killed process
        # lingers as a zombie, which PostgreSQL would take for a running server.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        if (self.folder / "PG_VERSION").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user():
            # The server refuses to run as root; its account must be able to reach its data.
            self.folder.parent.chmod(self.folder.parent.stat().st_mode | 0o011)
            shutil.chown(self.folder, self.user(), self.user())
            for above in self.folder.parents:
                if not above.stat().st_mode & 0o001:
                    raise Missing(f"account {self.user()} cannot enter {above}; give a --dir below /tmp, or run as another user than root")
        self.folder.chmod(0o700)
        initdb = [self._bin("initdb"), "-D", self.folder, "-U", "crm", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=self.user(), cwd="/")

    def command(self):
        settings = {
            "listen_addresses": HOST,
            "port": self.ports["sql"],
            "unix_socket_directories": "",
            "wal_level": "logical",
            "max_replication_slots": 20,
            "max_wal_senders": 20,
            "timezone": "UTC",
        }
        return [self._bin("postgres"), "-D", self.folder] + [f"--{name}={value}" for name, value in settings.items()]

    def user(self):
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam("postgres").pw_name
        except KeyError:
            raise Missing("no account postgres; run `platform deps`, or run as another user than root") from None

    def ready(self):
        return self._psql("postgres", "SELECT 1").returncode == 0

    def after_start(self):
        if self._psql("crm", "SELECT 1").returncode != 0:
            self._psql("postgres", "CREATE DATABASE crm").check_returncode()

    def env(self):
        return {"PG_DSN": f"postgresql://crm@{HOST}:{self.ports['sql']}/crm", "PSQL": str(self._bin("psql"))}

    def _psql(self, database, statement):
        dsn = f"postgresql://crm@{HOST}:{self.ports['sql']}/{database}"
        return subprocess.run([self._bin("psql"), "-X", "-q", "-c", statement, dsn], capture_output=True)

    @staticmethod
    def _bin(name):
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
        path = found[-1] if found else shutil.which(name)
        if path is None:
            raise Missing(f"PostgreSQL's {name} is not installed; run `platform deps`, or install PostgreSQL 15 or newer")
        return path


class Kafka(Part):
    """One node of Apache Kafka in KRaft mode. Topics are not made on first use: a missing one must be seen."""

    name = "kafka"
    # Clients that come through the proxy are told to come back through it: its port is that listener's advertised one.
    port_names = ("client", "controller", "behind", "proxied")

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(LOG4J)
        client, controller, behind, proxied = (self.ports[name] for name in self.port_names)
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{client},PROXIED://{HOST}:{behind},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{client},PROXIED://{HOST}:{proxied}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 5,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 5,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # Benchmarks write faster than five minutes of it fit on a disk.
            "log.retention.check.interval.ms": 10000,
            # Sessions of groups whose partitions the broker shares out, as short as those of the tests' other groups.
            "group.consumer.min.session.timeout.ms": 8000,
            "group.consumer.session.timeout.ms": 8000,
            "group.consumer.min.heartbeat.interval.ms": 500,
            "group.consumer.heartbeat.interval.ms": 500,
        }
        (self.folder / "server.properties").write_text(_properties(settings))
        if not (self.folder / "data" / "meta.properties").exists():
            tool = self._java() + ["kafka.tools.StorageTool"]
            cluster = subprocess.run(tool + ["random-uuid"], check=True, capture_output=True, text=True).stdout.split()[-1]
            tool += ["format", "-t", cluster, "-c", self.folder / "server.properties"]
            subprocess.run(tool, check=True, stdout=subprocess.DEVNULL)

    def command(self):
        return self._java() + ["kafka.Kafka", self.folder / "server.properties"]

    def ready(self):
        return _kafka_has_broker(self.ports["client"])

    def env(self):
        return {"KAFKA_BOOTSTRAP": f"{HOST}:{self.ports['client']}"}

    def _java(self):
        return [java(17), "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self.folder}/log4j2.xml",
                "-cp", f"{packages.kafka_jars()}/*"]


class Registry(Part):
    """Apicurio Registry, for its Confluent-compatible API. Schemas survive a restart."""

    name = "registry"
    port_names = ("http", "management")

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self):
        # No delay between a commit and the disk: a schema must survive SIGKILL.
        database = f"jdbc:h2:file:{self.folder}/db;WRITE_DELAY=0"
        settings = {"quarkus.http.host": HOST, "quarkus.http.port": self.ports["http"]}
        try:
            binary, version = java(21), packages.REGISTRY
            settings |= {
                "quarkus.management.host": HOST,
                "quarkus.management.port": self.ports["management"],
                "apicurio.datasource.url": database,
            }
        except Missing:
            binary, version = java(17), packages.REGISTRY_ON_17
            settings |= {"quarkus.datasource.jdbc.url": database}
        options = [f"-D{name}={value}" for name, value in settings.items()]
        return [binary, "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *options, "-jar", packages.registry_app(version)]

    def ready(self):
        return isinstance(http("GET", self._url("/subjects")), list)

    def after_start(self):
        # The global level starts as NONE, which would let any incompatible schema in.
        http("PUT", self._url("/config"), {"compatibility": "BACKWARD"}, or_raise=True)

    def env(self):
        return {"REGISTRY_URL": self._url("")}

    def _url(self, path):
        return f"http://{HOST}:{self.ports['http']}/apis/ccompat/v7{path}"


class Connect(Part):
    """Kafka Connect with Debezium for PostgreSQL; the connector chooses JSON or Avro (crm.py)."""

    name = "connect"
    needs = ("kafka",)
    port_names = ("http",)

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(LOG4J)
        settings = {
            "bootstrap.servers": f"{HOST}:{self.others['kafka']['client']}",
            "group.id": "connect",
            "listeners": f"http://{HOST}:{self.ports['http']}",
            "rest.advertised.host.name": HOST,
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "config.storage.topic": "connect.configs",
            "config.storage.replication.factor": 1,
            "offset.storage.topic": "connect.offsets",
            "offset.storage.replication.factor": 1,
            "offset.storage.partitions": 1,
            "status.storage.topic": "connect.status",
            "status.storage.replication.factor": 1,
            "status.storage.partitions": 1,
            "offset.flush.interval.ms": 1000,
            "scheduled.rebalance.max.delay.ms": 0,
            "plugin.path": packages.connect_plugins(),
            "plugin.discovery": "service_load",
        }
        (self.folder / "connect.properties").write_text(_properties(settings))

    def command(self):
        return [java(17), "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self.folder}/log4j2.xml",
                "-cp", f"{packages.kafka_jars()}/*",
                "org.apache.kafka.connect.cli.ConnectDistributed", self.folder / "connect.properties"]

    def ready(self):
        return isinstance(http("GET", self.env()["CONNECT_URL"] + "/connectors"), list)

    def env(self):
        return {"CONNECT_URL": f"http://{HOST}:{self.ports['http']}"}


class S3(Part):
    """moto's server: buckets in memory, and PUT on condition. It checks no signature."""

    name = "s3"
    port_names = ("http",)
    BUCKET = "accrue-test"

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self):
        return [packages.python(packages.LAKE_PACKAGES), "-m", "moto.server", "-H", HOST, "-p", self.ports["http"]]

    def ready(self):
        try:
            with socket.create_connection((HOST, self.ports["http"]), timeout=5):
                return True
        except OSError:
            return False

    def after_start(self):
        bucket = urllib.request.Request(f"{self.env()['S3_URL']}/{self.BUCKET}", method="PUT")
        urllib.request.urlopen(bucket, timeout=20).close()

    def env(self):
        return {"S3_URL": f"http://{HOST}:{self.ports['http']}"}


class Proxy(Part):
    """A network to Kafka that fails on demand (proxy.py)."""

    name = "proxy"
    needs = ("kafka",)
    port_names = ("control",)

    def command(self):
        kafka = self.others["kafka"]
        ports = {"listen": kafka["proxied"], "to": kafka["behind"], "control": self.ports["control"]}
        words = [word for name, port in ports.items() for word in (f"--{name}", port)]
        return [sys.executable, Path(__file__).with_name("proxy.py"), *words]

    def ready(self):
        return _kafka_has_broker(self.others["kafka"]["proxied"])

    def env(self):
        return {"KAFKA_PROXIED": f"{HOST}:{self.others['kafka']['proxied']}", "PROXY_CONTROL": f"{HOST}:{self.ports['control']}"}


ORDER = {part.name: part for part in (Postgres, Kafka, Registry, Connect, S3, Proxy)}


def java(at_least):
    """The oldest installed Java that is new enough: `JAVA_HOME`, the PATH, /usr/lib/jvm."""
    candidates = [Path(os.environ["JAVA_HOME"]) / "bin" / "java"] if os.environ.get("JAVA_HOME") else []
    candidates += [Path(shutil.which("java") or "/nowhere"), *sorted(Path("/usr/lib/jvm").glob("*/bin/java"))]
    versions = {}
    for binary in candidates:
        if binary.exists() and binary.resolve() not in versions.values():
            said = subprocess.run([binary, "-version"], capture_output=True, text=True).stderr
            version = re.search(r'version "(\d+)', said)
            if version and int(version[1]) >= at_least:
                versions.setdefault(int(version[1]), binary.resolve())
    if not versions:
        raise Missing(f"no Java {at_least} or newer; run `platform deps`, or install a JDK and set JAVA_HOME")
    return versions[min(versions)]


def http(method, url, body=None, or_raise=False):
    """The JSON answer, or None when the server is away or refuses; with `or_raise`, its words."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        if or_raise:
            raise RuntimeError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        if or_raise:
            raise RuntimeError(f"{method} {url}: {error}") from error
    return None


def _properties(settings):
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _kafka_has_broker(port):
    """Metadata request, version 1, for no topics: the broker lists itself once it may serve clients."""
    client = b"accrue-platform"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(12)  # length, correlation id, number of brokers
            return len(answer) == 12 and struct.unpack(">i", answer[8:12])[0] > 0
    except OSError:
        return False
