"""Kafka topics as an outsider sees them: read by confluent-kafka, decoded by fastavro.

Shares no code and no schema file with the project: the schema of a value is the one the
registry returns for the id in its first five bytes. Invariant: a value is decoded whole,
or the reader fails with topic, partition and offset.
"""

import base64
import datetime
import decimal
import io
import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

try:
    import confluent_kafka
    import fastavro
    from confluent_kafka.admin import AdminClient, OffsetSpec
except ImportError:
    # Run again with the Python that has them; see tests/platform/packages.py.
    if os.environ.get("ACCRUE_READER_PYTHON"):
        raise
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))
    import packages

    os.environ["ACCRUE_READER_PYTHON"] = str(packages.python())
    os.execv(os.environ["ACCRUE_READER_PYTHON"], [os.environ["ACCRUE_READER_PYTHON"], *sys.argv])

STALL_SECONDS = 60


@dataclass
class Record:
    """One record: raw bytes as the broker has them, and the value as Python types."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None
    headers: list
    timestamp: int
    value: object = None

    def where(self):
        return f"{self.topic}-{self.partition}@{self.offset}"


class Reader:
    def __init__(self, bootstrap, registry_url):
        self.bootstrap = bootstrap
        self.registry_url = registry_url.rstrip("/") if registry_url else None
        self.schemas = {}

    def read(self, topics, committed=True, decode=True):
        """Every record of the topics up to the end at the time of the call, by topic, partition and offset."""
        open_partitions = set(self.partitions(topics))
        consumer = self.consumer(open_partitions, committed)
        records = []
        try:
            while open_partitions:
                message = consumer.poll(STALL_SECONDS)
                if message is None:
                    raise RuntimeError(f"no record and no end within {STALL_SECONDS} s on {sorted(open_partitions)}")
                error = message.error()
                if error is None:
                    records.append(self.record(message, decode))
                elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    open_partitions.discard((message.topic(), message.partition()))
                else:
                    raise RuntimeError(f"{message.topic()}-{message.partition()}: {error}")
        finally:
            consumer.close()
        return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))

    def follow(self, topics, over):
        """Yields committed records as they appear, undecoded; after `over()`, up to the end at that time."""
        consumer = self.consumer(self.partitions(topics), committed=True)
        reached, ends, stalled = {}, None, 0
        try:
            while ends is None or any(reached.get(place, 0) < end for place, end in ends.items()):
                if ends is None and over():
                    ends = self.ends(topics, committed=True)
                message = consumer.poll(0.5)
                stalled = stalled + 0.5 if message is None and ends is not None else 0
                if stalled > STALL_SECONDS:
                    raise RuntimeError(f"no record and no end within {STALL_SECONDS} s: {reached} of {ends}")
                if message is None:
                    continue
                error = message.error()
                # The end of a partition lies behind the markers that a reader is not given.
                if error is not None and error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    reached[message.topic(), message.partition()] = message.offset()
                elif error is None:
                    yield self.record(message, decode=False)
                elif not error.retriable():
                    raise RuntimeError(f"{message.topic()}-{message.partition()}: {error}")
        finally:
            consumer.close()

    def consumer(self, places, committed):
        """A consumer at the start of these partitions."""
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "accrue-independent-reader",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for topic, partition in places])
        return consumer

    def record(self, message, decode):
        record = Record(
            message.topic(),
            message.partition(),
            message.offset(),
            message.key(),
            message.value(),
            message.headers() or [],
            message.timestamp()[1],
        )
        if decode and record.raw is not None:
            try:
                record.value = self.decode(record.raw)
            except Exception as error:
                raise RuntimeError(f"{record.where()}: {type(error).__name__}: {error}") from error
        return record

    def decode(self, raw):
        """Avro on the Confluent wire, else JSON."""
        if raw[:1] != b"\x00":
            return json.loads(raw, parse_float=decimal.Decimal)
        if len(raw) < 5:
            raise ValueError("shorter than the five bytes that name its schema")
        body = io.BytesIO(raw[5:])
        value = fastavro.schemaless_reader(body, self.schema(int.from_bytes(raw[1:5], "big")))
        if body.read():
            raise ValueError("bytes are left after the value")
        return value

    def schema(self, identity):
        if identity not in self.schemas:
            url = f"{self.registry_url}/schemas/ids/{identity}"
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    self.schemas[identity] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
            except urllib.error.HTTPError as error:
                raise ValueError(f"schema {identity} is not in the registry: {error}") from error
        return self.schemas[identity]

    def partitions(self, topics):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        known = admin.list_topics(timeout=30).topics
        for topic in topics:
            if topic not in known:
                raise RuntimeError(f"topic {topic} does not exist; there are: {', '.join(sorted(known))}")
        return [(topic, partition) for topic in topics for partition in known[topic].partitions]

    def ends(self, topics, committed):
        """The next offset of each partition, as a reader of that isolation level is told."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        level = confluent_kafka.IsolationLevel.READ_COMMITTED if committed else confluent_kafka.IsolationLevel.READ_UNCOMMITTED
        asked = {
            confluent_kafka.TopicPartition(topic, partition): OffsetSpec.latest()
            for topic, partition in self.partitions(topics)
        }
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=30)
        return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}


def plain(value):
    """A decoded value as JSON types: decimals as text, days and instants in ISO form, bytes in base64."""
    match value:
        case decimal.Decimal():
            return format(value, "f")
        case datetime.datetime() | datetime.date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {key: plain(member) for key, member in value.items()}
        case list():
            return [plain(member) for member in value]
        case _:
            return value
