"""What the platform is made of, and how it gets here.

Owns the versions and the cache folder `${XDG_CACHE_HOME:-$HOME/.cache}/accrue/platform`.
Invariant: a folder in the cache is complete or absent (filled under another name,
then renamed, under a lock), so an interrupted download is never taken for a server.
Absent on purpose: where packages come from. Maven and pip are asked by name, as
their own configuration says.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "accrue" / "platform"

KAFKA = "4.3.1"
DEBEZIUM = "3.6.3.Final"
REGISTRY = "3.3.3"  # needs Java 21 or newer
REGISTRY_ON_17 = "2.6.13.Final"  # the newest line that runs on Java 17; same Confluent API
CONVERTER = "2.6.13.Final"  # the 3.x converter has no Confluent-compatible mode for the v2 API

# Kafka and Connect share one class path: the same release, resolved together once.
KAFKA_JARS = [
    f"org.apache.kafka:kafka_2.13:{KAFKA}",
    f"org.apache.kafka:kafka-tools:{KAFKA}",
    f"org.apache.kafka:connect-runtime:{KAFKA}",
    f"org.apache.kafka:connect-json:{KAFKA}",
    f"org.apache.kafka:connect-transforms:{KAFKA}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
]
CONVERTER_JARS = [
    f"io.apicurio:apicurio-registry-utils-converter:{CONVERTER}",
    f"io.apicurio:apicurio-registry-serdes-avro-serde:{CONVERTER}",
]
# Connect finds converters through service files; the converter ships without one.
CONVERTER_CLASS = "io.apicurio.registry.utils.converter.AvroConverter"
# Jars that Connect itself brings: a second copy in a plug-in breaks class loading.
BROUGHT_BY_CONNECT = ("kafka-clients-", "connect-api-", "connect-json-", "slf4j-")

PYTHON_PACKAGES = ["confluent-kafka==2.12.1", "fastavro==1.12.1"]
# Programs of others that read a lakehouse, and a server that speaks S3.
LAKE_PACKAGES = ["duckdb==1.5.5", "duckdb-extension-delta==1.5.5", "deltalake==1.6.6", "pyarrow==26.0.1", "moto[server]==5.2.2"]
# What the doubles of Snowflake and BigQuery are made of: an engine, a translator, Google's own SQL parser.
DOUBLE_PACKAGES = ["duckdb==1.5.5", "sqlglot==30.30.0", "zetasql==0.1.5", "cryptography==50.0.2"]


class Missing(Exception):
    """Something this machine lacks; the text says how to get it."""


def kafka_jars():
    """Folder with the jars of Kafka, its tools and Connect."""
    return _complete(f"kafka-{KAFKA}", lambda folder: _copy_with_dependencies(KAFKA_JARS, folder))


def connect_plugins():
    """Folder for Connect's `plugin.path`: Debezium for PostgreSQL, and the Avro converter."""

    def fill(folder):
        _unpack(f"io.debezium:debezium-connector-postgres:{DEBEZIUM}:tar.gz:plugin", folder)
        converter = folder / "apicurio-converter"
        _copy_with_dependencies(CONVERTER_JARS, converter)
        for jar in converter.iterdir():
            if jar.name.startswith(BROUGHT_BY_CONNECT):
                jar.unlink()
        with zipfile.ZipFile(converter / "converter-service.jar", "w") as jar:
            jar.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", CONVERTER_CLASS + "\n")

    return _complete(f"connect-plugins-{DEBEZIUM}-{CONVERTER}", fill)


def registry_app(version):
    """Folder that holds the registry's `quarkus-run.jar`."""
    folder = _complete(
        f"apicurio-{version}",
        lambda folder: _unpack(f"io.apicurio:apicurio-registry-app:{version}:tar.gz:all", folder),
    )
    found = next(folder.rglob("quarkus-run.jar"), None) or next(folder.rglob("apicurio-registry-app-*-runner.jar"), None)
    if found is None:
        raise Missing(f"no runnable jar in {folder}; remove that folder and run again")
    return found


def python(packages=tuple(PYTHON_PACKAGES)):
    """A Python with the packages that an independent reader needs."""
    name = "python-" + "-".join(re.sub("[^A-Za-z0-9.]+", "-", package) for package in packages)

    def fill(folder):
        _run([sys.executable, "-m", "venv", folder], "a virtual environment (Debian: apt-get install python3-venv)")
        _run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages], "pip packages")

    # A virtual environment knows its own path, so it is made in place; the marker says it is whole.
    folder = CACHE / name
    with _locked(name):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            fill(folder)
            (folder / ".complete").touch()
    return folder / "bin" / "python"


def _complete(name, fill):
    folder = CACHE / name
    if folder.exists():
        return folder
    with _locked(name):
        if not folder.exists():
            partial = CACHE / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            print(f"fetching {name}", file=sys.stderr, flush=True)
            fill(partial)
            partial.rename(folder)
    return folder


@contextlib.contextmanager
def _locked(name):
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_with_dependencies(coordinates, folder):
    wanted = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *coordinate.split(":")
        )
        for coordinate in coordinates
    )
    folder.mkdir(parents=True, exist_ok=True)
    pom = folder / "pom.xml"
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>io.accrue</groupId><artifactId>platform</artifactId><version>1</version>"
        f"<dependencies>{wanted}</dependencies></project>"
    )
    _maven("-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}")


def _unpack(coordinate, folder):
    _maven("dependency:copy", f"-Dartifact={coordinate}", f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true")
    for archive in folder.glob("*.tar.gz"):
        shutil.unpack_archive(archive, folder)
        archive.unlink()


def _maven(*arguments):
    if shutil.which("mvn") is None:
        raise Missing("mvn is not on the PATH; run `platform deps`, or install Apache Maven 3.8 or newer")
    _run(["mvn", "-B", "-q", *arguments], "Maven packages", cwd=CACHE)


def _run(command, what, cwd=None):
    try:
        subprocess.run([str(word) for word in command], check=True, cwd=cwd, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"could not install {what}: {error}") from error
