"""Tryton as a part of the test platform: how it is installed, started and asked whether it is ready.

Owns its versions and settings. Invariant: as tests/platform/parts.py. PostgreSQL is not a matter of taste: on SQLite
this release posts moves that do not balance. Absent on purpose: the company (setup.py).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import packages
import parts

PACKAGES = [
    "trytond[PostgreSQL]==8.2.1",
    "trytond-account==8.2.1",
    "trytond-account-invoice==8.2.0",
    "trytond-account-deposit==8.2.0",  # lets invoices credit contract liabilities; without it they may only credit revenue
    "trytond-account-statement==8.2.0",
    "proteus==8.2.0",
]
DATABASE, USER, PASSWORD = "erp", "admin", "admin-of-the-tests"
SETUP = Path(__file__).resolve().parent / "setup.py"


def python():
    """A Python with Tryton in it."""
    name = "tryton-" + hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    folder = packages.CACHE / name
    with packages._locked(name):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            print("fetching Tryton", file=sys.stderr, flush=True)
            packages._run([sys.executable, "-m", "venv", folder], "a virtual environment (Debian: apt-get install python3-venv)")
            packages._run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES], "pip packages")
            (folder / ".complete").touch()
    return folder / "bin" / "python"


class Database(parts.Postgres):
    """PostgreSQL without the CRM's database."""

    def after_start(self):
        pass


class Tryton(parts.Part):
    name = "tryton"
    needs = ("postgres",)
    port_names = ("http",)

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "trytond.conf").write_text(
            f"[database]\nuri = {self._server()}/\npath = {self.folder}/data\ndefault_name = {DATABASE}\n"
            f"[web]\nlisten = {parts.HOST}:{self.ports['http']}\n[request]\ntimeout = 60\n[session]\nsuper_pwd = \n"
        )
        if self._psql(DATABASE, "SELECT 1 FROM ir_module LIMIT 1").returncode == 0:
            return
        self._psql("postgres", f"CREATE DATABASE {DATABASE}")
        # What the company is made of decides whether the kept one still serves.
        made_of = hashlib.sha256(" ".join(PACKAGES).encode() + SETUP.read_bytes()).hexdigest()[:12]
        kept = packages.CACHE / f"tryton-company-{made_of}.sql"
        with packages._locked("tryton-company"):
            if not kept.exists():
                self._make()
                dump = [self._bin("pg_dump"), "--no-owner", "-f", f"{kept}.new", f"{self._server()}/{DATABASE}"]
                subprocess.run(dump, check=True)
                Path(f"{kept}.new").rename(kept)
                return
        restore = [self._bin("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", kept, f"{self._server()}/{DATABASE}"]
        subprocess.run(restore, check=True, stdout=subprocess.DEVNULL)

    def _make(self):
        print("making Tryton's company (a minute or two, once)", file=sys.stderr, flush=True)
        admin = python().with_name("trytond-admin")
        words = self.folder / "password"
        words.write_text(PASSWORD)
        options = ["-c", self.folder / "trytond.conf", "-d", DATABASE, "--email", "admin@example.com", "--password"]
        with open(self.folder / "setup.log", "ab") as log:
            self._logged([admin, *options, "-u", "account_deposit", "account_statement", "--activate-dependencies"], log, words)
            self._logged([python(), SETUP, self.folder / "trytond.conf", DATABASE], log, words)

    def _logged(self, command, log, words):
        environment = os.environ | {"TRYTONPASSFILE": str(words)}
        done = subprocess.run([str(word) for word in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        if done.returncode:
            tail = (self.folder / "setup.log").read_text(errors="replace").splitlines()[-25:]
            raise RuntimeError("Tryton could not be set up; its last words:\n" + "\n".join(tail))

    def command(self):
        return [python().with_name("trytond"), "-c", self.folder / "trytond.conf", "-d", DATABASE]

    def ready(self):
        body = json.dumps({"id": 1, "method": "common.db.login", "params": [USER, {"password": PASSWORD}]}).encode()
        request = urllib.request.Request(self.env()["TRYTON_URL"] + f"/{DATABASE}/rpc/", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return bool(json.loads(answer.read()).get("result"))
        except (OSError, ValueError):
            return False

    def env(self):
        return {
            "TRYTON_URL": f"http://{parts.HOST}:{self.ports['http']}",
            "TRYTON_DATABASE": DATABASE,
            "TRYTON_USER": USER,
            "TRYTON_PASSWORD": PASSWORD,
        }

    def _server(self):
        state = json.loads((self.folder.parent / "platform.json").read_text())
        return f"postgresql://crm@{parts.HOST}:{state['postgres']['ports']['sql']}"

    def _psql(self, database, statement):
        command = [self._bin("psql"), "-X", "-q", "-c", statement, f"{self._server()}/{database}"]
        return subprocess.run(command, capture_output=True)

    _bin = staticmethod(parts.Postgres._bin)
