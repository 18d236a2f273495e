#!/usr/bin/env python3
"""Doubles of Snowflake and BigQuery on one port, for tests.

    cloud.py      prints one line of JSON: where it listens and how to get in; ends when its input does

Tests speak to it at /double: `schema` makes an empty one of both vendors, `arm` sets faults, `ask` puts a question in
a vendor's SQL, `struck` tells which faults there were. Owns HTTP. Absent: SQL and the vendors' words.
"""

import json
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import engine
from faults import Faults
from vendors import PENDING_LOOKS, BigQuery, Refused, Snowflake

SNOWFLAKE, BIGQUERY = Snowflake(), BigQuery()
FAULTS = Faults()
LOOKS = {}  # of statements that pretend to be under way: looks that are left


class Lost(Exception):
    """No answer: the connection ends."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.handle_one(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self):
        self.handle_one(b"")

    def handle_one(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        headers = {}
        try:
            status, answer = self.route(url.path, query, body)
        except Refused as refused:
            status, answer, headers = refused.status, refused.body, refused.headers
        except Lost:
            self.close_connection = True
            return
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(text))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def route(self, path, query, body):
        parts = path.strip("/").split("/")
        if parts[0] == "double":
            return 200, control(parts[1], json.loads(body or b"null"))
        if parts == ["token"]:
            return BIGQUERY.token(dict(urllib.parse.parse_qsl(body.decode())))
        if parts[:3] == ["api", "v2", "statements"]:
            if len(parts) == 3:
                submitted = lambda: SNOWFLAKE.submit(query, self.headers, json.loads(body))
                return self.struck(SNOWFLAKE, submitted, SNOWFLAKE.answer, SNOWFLAKE.under_way)
            handle = SNOWFLAKE.look(parts[3], query, self.headers)
            if left(handle):
                return SNOWFLAKE.under_way(handle)
            return SNOWFLAKE.answer(handle, int(query.get("partition", 0)))
        if parts[:3] == ["bigquery", "v2", "projects"]:
            return self.bigquery(parts[3], parts[4:], query, body)
        raise Refused(404, {"message": "no such address"})

    def bigquery(self, project, parts, query, body):
        if parts == ["jobs"]:
            inserted = lambda: BIGQUERY.insert(project, self.headers, json.loads(body))
            return self.struck(BIGQUERY, inserted, BIGQUERY.job, lambda name: BIGQUERY.job(name, pending=True), BIGQUERY.finish)
        if parts == ["queries"]:
            asked = lambda: BIGQUERY.query(project, self.headers, json.loads(body))
            return self.struck(BIGQUERY, asked, BIGQUERY.results, lambda name: BIGQUERY.results(name, pending=True))
        BIGQUERY.authorize(self.headers)
        if parts[0] == "jobs":
            return BIGQUERY.job(parts[1], pending=left(parts[1]))
        return BIGQUERY.results(parts[1], query.get("pageToken"), pending=left(parts[1]))

    def struck(self, vendor, do, answer, under_way, finish=lambda name: None):
        """Carries out a submission, unless a fault is due before it, and answers, unless one is due after it."""
        match FAULTS.next():
            case "busy":
                raise Refused(429, {"message": "too many requests"}, {"Retry-After": "1"})
            case "broken":
                raise Refused(503, b"<html>unavailable</html>")
            case "lost_before":
                raise Lost
            case "hold_before":
                hold()
            case "expired":
                vendor.expire()
            case "lost_after":
                finish(do())
                raise Lost
            case "broken_after":
                finish(do())
                raise Refused(503, {"message": "upstream timed out"})
            case "malformed":
                finish(do())
                return 200, b'{"statementHandle": "'
            case "hold_after":
                finish(do())
                hold()
            case "pending":
                name = do()
                LOOKS[name] = PENDING_LOOKS
                return under_way(name)
            case None:
                return answer(do())
            case other:
                raise ValueError(other)


def left(name):
    LOOKS[name] = LOOKS.get(name, 0) - 1
    return LOOKS[name] >= 0


def hold():
    FAULTS.holding += 1
    time.sleep(20)  # by then the client was killed
    raise Lost


def control(what, given):
    if what == "schema":
        SNOWFLAKE.schemas["FINANCE", given] = engine.Database("snowflake")
        BIGQUERY.datasets[given] = engine.Database("bigquery", (BIGQUERY.PROJECT, given))
        return {}
    if what == "arm":
        FAULTS.arm(given)
        return {}
    if what == "holding":
        return FAULTS.holding
    if what == "struck":
        return FAULTS.struck
    if what == "ask":
        vendor, schema, sql = given
        try:
            if vendor == "snowflake":
                rows = SNOWFLAKE.schemas["FINANCE", schema].run(engine.snowflake(sql))
            else:
                rows = BIGQUERY.datasets[schema].run(engine.bigquery(sql))
        except (engine.Wrong, engine.Conflict) as error:
            return {"error": str(error)}
        return {"rows": [["" if cell is None else str(cell) for cell in row] for row in rows]}
    raise Refused(404, {"message": what})


def main():
    engine.bigquery("SELECT 1")  # loads the parser, which takes a while
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_port}"
    BIGQUERY.address = address
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = {
        "type": "service_account",
        "client_email": BIGQUERY.EMAIL,
        "private_key": BIGQUERY.key.pem,
        "token_uri": address + "/token",
    }
    said = {"address": address, "private_key": SNOWFLAKE.key.pem, "account": SNOWFLAKE.ACCOUNT, "user": SNOWFLAKE.USER}
    print(json.dumps(said | {"project": BIGQUERY.PROJECT, "credentials": json.dumps(account)}), flush=True)
    sys.stdin.read()


main()
