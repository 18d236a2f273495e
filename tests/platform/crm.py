#!/usr/bin/env python3
"""The CRM of the tests: its tables, its work, and Debezium's capture of it.

    crm.py schema  --dir DIR                               create the tables
    crm.py load    --dir DIR --seed 7 --deals 200          run the workload; prints what the books owe, JSON lines
    crm.py sql     --seed 7 --deals 200                    print it as SQL instead
    crm.py capture --dir DIR --format json|json-schemas|avro [--prefix crm]
    crm.py drain   --dir DIR [--prefix crm]                wait until every committed change is captured
    crm.py release --dir DIR [--prefix crm]                remove the connector and its replication slot

DIR is the folder of `platform up`. `--from` and `--to` run a part of the workload, by
transaction number, for tests that break something in between. Owns the connector's settings.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

from parts import http
from workload import Workload

CONNECTOR = Path(__file__).resolve().parents[2] / "deploy" / "connect" / "crm.json"
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
AVRO_CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"


def connector(env, prefix, form, partitions, decimals):
    """The connector of docker-compose.yml, at this platform's addresses; topics are PREFIX.public.TABLE and PREFIX.transaction."""
    database = urllib.parse.urlparse(env["PG_DSN"])
    settings = json.loads(CONNECTOR.read_text()) | {
        "database.hostname": database.hostname,
        "database.port": str(database.port),
        "database.user": database.username,
        "database.password": "",
        "database.dbname": database.path.lstrip("/"),
        "slot.name": slot(prefix),
        "publication.name": slot(prefix),
        "topic.prefix": prefix,
        "decimal.handling.mode": decimals,
        "heartbeat.interval.ms": "500",
        "topic.creation.default.partitions": str(partitions),
        # Transaction ends and heartbeats are one sequence: one partition.
        "topic.creation.sequence.include": rf"{prefix}\.transaction,__debezium-heartbeat\.{prefix}",
    }
    for side in ("key", "value"):
        if form == "avro":
            settings |= {
                f"{side}.converter": AVRO_CONVERTER,
                f"{side}.converter.apicurio.registry.url": env["REGISTRY_URL"].replace("/ccompat/v7", "/registry/v2"),
                f"{side}.converter.apicurio.registry.auto-register": "true",
                f"{side}.converter.apicurio.registry.find-latest": "true",
                # The Confluent wire: magic byte, four bytes of schema id, no headers.
                f"{side}.converter.apicurio.registry.as-confluent": "true",
                f"{side}.converter.apicurio.registry.use-id": "contentId",
                f"{side}.converter.apicurio.registry.headers.enabled": "false",
            }
        else:
            settings |= {f"{side}.converter": JSON_CONVERTER, f"{side}.converter.schemas.enable": str(form == "json-schemas").lower()}
    if form == "avro":
        settings["schema.name.adjustment.mode"] = "avro"
    return settings


def capture(env, prefix, form, partitions, decimals, timeout):
    http("PUT", f"{env['CONNECT_URL']}/connectors/{prefix}/config", connector(env, prefix, form, partitions, decimals), or_raise=True)
    wait(
        # A connector may say RUNNING with no task while an open transaction holds up its slot.
        lambda: running(env, prefix) and psql(env, f"SELECT active FROM pg_replication_slots WHERE slot_name = '{slot(prefix)}'") == "t",
        timeout,
        f"connector {prefix} did not start streaming; an open transaction in PostgreSQL blocks its slot",
    )


def drain(env, prefix, timeout):
    """The slot confirms only what Connect has written to Kafka, so its position is proof.

    It moves only by what is captured: a message in the log (topic PREFIX.message) marks the end.
    """
    end = psql(env, "SELECT pg_logical_emit_message(false, 'drain', '')")
    confirmed = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot(prefix)}'"
    wait(
        lambda: running(env, prefix) and psql(env, confirmed) == "t",
        timeout,
        f"connector {prefix} did not capture all changes up to {end}",
    )


def running(env, prefix):
    """Whether the connector has a task at work; a failed task is an error with the connector's own words."""
    status = http("GET", f"{env['CONNECT_URL']}/connectors/{prefix}/status") or {}
    for task in status.get("tasks", []):
        if task["state"] == "FAILED":
            raise RuntimeError(f"connector {prefix} failed: {task.get('trace', '')[:3000]}")
    return any(task["state"] == "RUNNING" for task in status.get("tasks", []))


def release(env, prefix, timeout):
    http("DELETE", f"{env['CONNECT_URL']}/connectors/{prefix}", or_raise=True)
    where = f"WHERE slot_name = '{slot(prefix)}'"
    wait(lambda: psql(env, f"SELECT count(*) FROM pg_replication_slots {where} AND active") == "0", timeout, f"slot of {prefix} stays active")
    psql(env, f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots {where}")
    psql(env, f"DROP PUBLICATION IF EXISTS {slot(prefix)}")


def load(env, transactions, rate):
    """Runs each transaction in one session, at most `rate` a second where given."""
    command = [env["PSQL"], "-X", "-q", "-v", "ON_ERROR_STOP=1", env["PG_DSN"]]
    session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, encoding="utf-8")
    began = time.monotonic()
    try:
        for number, statements in enumerate(transactions):
            if rate:
                time.sleep(max(0, began + number / rate - time.monotonic()))
            session.stdin.write(as_sql(statements))
            session.stdin.flush()
        session.stdin.close()
    except BrokenPipeError:
        pass
    if session.wait() != 0:
        raise RuntimeError(f"psql ended with {session.returncode}; its message is above")


def as_sql(statements):
    return "BEGIN;\n" + "".join(f"{statement};\n" for statement in statements) + "COMMIT;\n"


def slot(prefix):
    return "accrue_" + prefix.replace("-", "_").replace(".", "_")


def psql(env, statement):
    answer = subprocess.run([env["PSQL"], "-X", "-A", "-t", "-q", "-c", statement, env["PG_DSN"]], capture_output=True, text=True)
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr.strip())
    return answer.stdout.strip()


def wait(done, timeout, otherwise):
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"{otherwise} (waited {timeout} seconds)")
        time.sleep(0.3)


def read_env(folder):
    path = Path(folder) / "env"
    if not path.exists():
        raise RuntimeError(f"{path} is not there; run `platform up --dir {folder}` first")
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("schema", "load", "sql", "capture", "drain", "release"):
        command = commands.add_parser(name)
        if name != "sql":
            command.add_argument("--dir", required=True, help="folder of `platform up`")
        if name in ("load", "sql"):
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--deals", type=int, default=100)
            command.add_argument("--tenants", default="acme-corp", help="separated by commas")
            command.add_argument("--currencies", default="USD", help="separated by commas")
            command.add_argument("--prefix-deals", default="D", help="first part of every deal's id")
            command.add_argument("--from", dest="first", type=int, default=0, help="first transaction")
            command.add_argument("--to", dest="last", type=int, help="transaction to stop before")
        if name == "load":
            command.add_argument("--rate", type=float, default=0, help="transactions a second (default: no limit)")
        if name in ("capture", "drain", "release"):
            command.add_argument("--prefix", default="crm", help="Debezium's topic prefix, also the connector's name")
            command.add_argument("--timeout", type=int, default=180, help="seconds")
        if name == "capture":
            command.add_argument("--format", choices=["json", "json-schemas", "avro"], default="json")
            command.add_argument("--partitions", type=int, default=4)
            command.add_argument("--decimals", choices=["precise", "string"], default="precise", help="decimal.handling.mode")
    given = parser.parse_args()
    try:
        run(given)
    except RuntimeError as error:
        print(f"crm: {error}", file=sys.stderr)
        return 1
    return 0


def run(given):
    if given.command in ("load", "sql"):
        work = Workload(given.seed, given.deals, given.tenants.split(","), given.currencies.split(","), given.prefix_deals)
        part = work.transactions[given.first : given.last]
        if given.command == "sql":
            return sys.stdout.writelines(map(as_sql, part))
        load(read_env(given.dir), part, given.rate)
        print(f"{len(part)} of {len(work.transactions)} transactions committed", file=sys.stderr)
        for deal in work.deals:
            print(json.dumps(deal.expected(), sort_keys=True))
        return None
    env = read_env(given.dir)
    if given.command == "schema":
        psql_file = [env["PSQL"], "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(Path(__file__).with_name("crm.sql")), env["PG_DSN"]]
        if subprocess.run(psql_file).returncode != 0:
            raise RuntimeError("the tables could not be created; psql's message is above")
    elif given.command == "capture":
        capture(env, given.prefix, given.format, given.partitions, given.decimals, given.timeout)
    elif given.command == "drain":
        drain(env, given.prefix, given.timeout)
    elif given.command == "release":
        release(env, given.prefix, given.timeout)
    return None


if __name__ == "__main__":
    sys.exit(main())
